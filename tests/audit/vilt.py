"""Somebody else's model: a tiny ViLT of transformers with random weights. It cannot look, and must not seem to."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from transformers import BertTokenizer, ViltConfig, ViltForQuestionAnswering

from tests.audit.drawn import SIZE

NAMES = ("yes", "no", "left", "right", "none")
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "is", "there", "edema", "a", "on", "which", "side", "it", "?")
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}

torch.manual_seed(0)
torch.set_num_threads(1)
with tempfile.TemporaryDirectory() as folder:
    vocabulary = Path(folder, "vocab.txt")
    vocabulary.write_text("\n".join(WORDS))
    tokenizer = BertTokenizer(str(vocabulary))
model = ViltForQuestionAnswering(
    ViltConfig(vocab_size=len(WORDS), image_size=SIZE, patch_size=16, id2label=dict(enumerate(NAMES)), **SMALL)
).eval()


def answer(film: np.ndarray, question: str) -> str:
    """One of `NAMES`."""
    pixels = torch.tensor(film[None, None] / 127.5 - 1).float().expand(1, 3, *film.shape)
    with torch.no_grad():
        logits = model(**tokenizer(question, return_tensors="pt"), pixel_values=pixels).logits
    return NAMES[int(logits.argmax())]

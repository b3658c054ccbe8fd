"""Writes an export for PyTorch users: a folder that `transformers` loads without JAX and without this package.

config.json, *_medvill.py             the network, our code (`hub/transformers_files`)
model.safetensors                     arrays in torch's layout, named as in exports, with dots
processor_config.json                 how films and texts are prepared
vocab.txt, tokenizer_config.json      of `AutoTokenizer`
README.md                             model card
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from medvill_jax.hub.arrays.bound import NEEDED
from medvill_jax.hub.card import model_card
from medvill_jax.hub.errors import HubError, raise_all
from medvill_jax.hub.export import CARD_FILE, CONFIG_FILE, HEADS, WEIGHTS_FILE, Export, whole_folder
from medvill_jax.hub.head_functions import heads_of
from medvill_jax.hub.names import LEAVES, to_theirs
from medvill_jax.hub.network import expected
from medvill_jax.hub.report_writer import Words
from medvill_jax.models.resnet import ResNetConfig
from medvill_jax.models.vit_patch import PatchConfig
from medvill_jax.trees import flatten, part_of

CODE = Path(__file__).parent / "transformers_files"
CODE_FILES = tuple(sorted(path.name for path in CODE.glob("*_medvill.py")))
PROCESSOR_FILE = "processor_config.json"
TOKENIZER_FILE = "tokenizer_config.json"
VOCAB_FILE = "vocab.txt"
FILES = (*CODE_FILES, VOCAB_FILE, TOKENIZER_FILE, CONFIG_FILE, WEIGHTS_FILE, PROCESSOR_FILE, CARD_FILE)
# What both configurations call alike, of the Transformer and of the released code's behaviour.
SIZES = (
    "vocab_size", "hidden_size", "num_layers", "num_heads", "intermediate_size", "max_positions", "token_types",
    "layer_norm_eps", "dropout", "initializer_range",
)  # fmt: skip
COMPAT = ("first_sep_position", "cell_positions", "pad_visible", "pad_segment")
# Word pieces of a text in the published model, for exports that do not record theirs.
TEXT_LEN = 253
USE = """\
from transformers import AutoModel, AutoProcessor

model = AutoModel.from_pretrained("THIS_FOLDER", trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained("THIS_FOLDER", trust_remote_code=True)
inputs = processor(images="film.png", {argument}return_tensors="pt")
{call}"""


def write_transformers(out: Path, export: Export) -> None:
    """Writes the folder, whole or not at all; an older one of this kind at the same path is replaced.

    Raises:
        HubError: the export is not a whole model, has no vocabulary or an image encoder without PyTorch code, or `out`
            holds other files.
    """
    config, arrays = torch_config(export), torch_arrays(export)
    assert export.vocab is not None
    with whole_folder(out, FILES) as folder:
        for name in CODE_FILES:
            shutil.copyfile(CODE / name, folder / name)
        shutil.copyfile(export.vocab, folder / VOCAB_FILE)
        save_file(arrays, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        for name, content in (
            (CONFIG_FILE, config),
            (PROCESSOR_FILE, processor_config(export)),
            (TOKENIZER_FILE, tokenizer_config(export)),
        ):
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (folder / CARD_FILE).write_text(_card(export), encoding="utf-8")


def torch_config(export: Export) -> dict[str, Any]:
    """The fields of `transformers_files.configuration_medvill.MedvillConfig`, and what transformers reads beside them.

    Raises:
        HubError: as for `write_transformers`.
    """
    if absent := [part for part in NEEDED if part not in export.parts]:
        raise HubError(
            f"only a whole MedViLL model can be written for transformers; this export lacks {', '.join(absent)}"
        )
    if export.vocab is None:
        raise HubError("this export has no vocabulary, which its users need: give it with --tokenizer=vocab.txt")
    model, extra = export.config, export.extra
    bert, compat = model.transformer, model.compat
    words = Words.of(export, model)
    writing = words.writing(model, beams=1, max_len=1, min_len=0, no_repeat_ngram=0, banned=None)
    return {
        "model_type": "medvill",
        "architectures": ["MedvillModel"],
        "auto_map": {
            "AutoConfig": "configuration_medvill.MedvillConfig",
            "AutoModel": "modeling_medvill.MedvillModel",
        },
        **{name: getattr(bert, name) for name in SIZES},
        "image_encoder": _image_encoder(export),
        "image_size": model.image_size,
        "attention": model.attention,
        "cls_id": model.cls_id,
        "sep_id": model.sep_id,
        "mask_id": writing.mask_id,
        "banned_ids": list(writing.rules.banned),
        "parts": [part for part in ("pooler", "mlm", "itm") if part in export.parts],
        "stage": export.stage,
        **dataclasses.asdict(heads_of(export)),
        "inputs": extra.get("inputs", "image+report"),
        "summary": extra.get("summary", "product"),
        "label_names": list(export.label_names) or None,
        "thresholds": extra.get("thresholds"),
        "answer_names": extra.get("answers"),
        "decode": extra.get("decode"),
        **{name: getattr(compat, name) for name in COMPAT},
    }


def torch_arrays(export: Export) -> dict[str, np.ndarray]:
    """The export's arrays under their names in PyTorch, in torch's layout, with BatchNorm counters.

    Raises:
        HubError: the export lacks arrays of a part that it holds.
    """
    arrays = {**flatten(export.params), **flatten(export.stats)}
    params, stats = expected(export.config)
    missing = [name for name in (*params, *stats) if part_of(name) in export.parts and name not in arrays]
    raise_all("the export was converted without arrays that the model needs", [f"missing: {name}" for name in missing])
    arrays |= {f"{HEADS}/{name}": array for name, array in flatten(export.heads).items()}
    named = {}
    for name, array in arrays.items():
        module, _, leaf = name.rpartition("/")
        # A scalar is the parameter of its module itself, not the scale of a normalisation.
        theirs = leaf if array.ndim == 0 else LEAVES[leaf]
        named[f"{module.replace('/', '.')}.{theirs}"] = to_theirs(name, np.asarray(array))
        if leaf == "mean":
            named[f"{module.replace('/', '.')}.num_batches_tracked"] = np.zeros((), np.int64)
    return named


def processor_config(export: Export) -> dict[str, Any]:
    """The arguments of `transformers_files.processing_medvill.MedvillProcessor`."""
    films = export.extra.get("films", {})
    return {
        "processor_class": "MedvillProcessor",
        "auto_map": {"AutoProcessor": "processing_medvill.MedvillProcessor"},
        "image_size": export.config.image_size,
        "text_len": min(export.extra.get("text_len", TEXT_LEN), export.config.bert.max_positions - 1),
        "record_size": films.get("image_size", 512),
        "record_square": films.get("square", False),
    }


def tokenizer_config(export: Export) -> dict[str, Any]:
    """The vocabulary as transformers' own `BertTokenizer`."""
    return {
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": True,
        "model_max_length": export.config.bert.max_positions,
        **{f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")},
    }


def _image_encoder(export: Export) -> dict[str, Any]:
    encoder = export.config.encoder
    if not isinstance(encoder, ResNetConfig | PatchConfig):
        raise HubError(f"the image encoder {encoder} has no PyTorch code: there is code for ResNets and patches")
    return dataclasses.asdict(encoder)


def _card(export: Export) -> str:
    argument, call = {
        "classification": ("", "probabilities = model.class_logits(**inputs).sigmoid()"),
        "vqa": ('questions="is there an effusion?", ', "answers = model.answer_logits(**inputs)"),
        "generation": ("", "reports = processor.batch_decode(model.generate(**inputs).sequences)"),
        "retrieval": ('text=["small left effusion", "normal"], ', "scores = model.match(**inputs)"),
    }.get(export.stage, ('text="small left effusion", ', "logits = model(**inputs)"))
    if export.stage == "classification" and export.extra.get("inputs", "image+report") != "image":
        argument = 'text="small left effusion", '
    arrays = {**flatten(export.params), **flatten(export.stats), **flatten(export.heads)}
    return model_card(
        export.config,
        stage=export.stage,
        arrays={name: array.shape for name, array in arrays.items()},
        label_names=export.label_names,
        card={"source": "Converted from an export of medvill_jax. It needs no JAX; its code is under Apache-2.0."},
        use=USE.format(argument=argument, call=call),
    )

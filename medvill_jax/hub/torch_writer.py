"""Writes an export as a PyTorch checkpoint with the published names (docs/spec.md#checkpoints)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from medvill_jax.hub.assignment import HEADS
from medvill_jax.hub.errors import HubError, raise_all
from medvill_jax.hub.export import Export, whole_folder
from medvill_jax.hub.names import UPSTREAM, Format, Renamer, to_theirs
from medvill_jax.hub.network import expected
from medvill_jax.trees import flatten, part_of

WEIGHTS_FILE = "pytorch_model.bin"
CONFIG_FILE = "config.json"


def write_upstream(out: Path, export: Export) -> None:
    """Writes `pytorch_model.bin` and `config.json`, whole or not at all.

    A converted upstream checkpoint comes back bitwise. The stage decides the names. Aliases, `position_ids` and
    BatchNorm counters are written as in the published files; a classification checkpoint is `{"state_dict": ...}` with
    the prefix `module.`.

    Raises:
        HubError: torch is not installed, the export is not a whole MedViLL model, or `out` holds other files.
    """
    try:
        import torch
    except ImportError:
        raise HubError("writing PyTorch files needs torch: pip install 'medvill_jax[convert]'") from None
    if export.stage not in UPSTREAM:
        raise HubError(
            f"only a whole MedViLL model can be written as upstream; this export is a {export.stage} with "
            f"{', '.join(export.parts)}"
        )
    layout = UPSTREAM[export.stage]
    named = _their_arrays(export, layout)
    tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in named.items()}
    for alias in layout.writes:
        tensors[alias] = tensors[layout.aliases[alias]]  # shares storage, as in the published files
    tensors = {name: tensors[name] for name in _published_order(tensors, named)}
    content: dict[str, Any] = tensors
    if layout.name == "classification":
        content = {"state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()}}
    with whole_folder(out, (WEIGHTS_FILE, CONFIG_FILE)) as folder:
        torch.save(content, folder / WEIGHTS_FILE)
        (folder / CONFIG_FILE).write_text(json.dumps(hf_config(export), indent=2, sort_keys=True) + "\n")


def hf_config(export: Export) -> dict[str, Any]:
    """The config.json of a published checkpoint: a Hugging Face `BertConfig`."""
    bert = export.config.bert
    return {
        "architectures": ["CXRBERT"],
        "model_type": "bert",
        "vocab_size": bert.vocab_size,
        "hidden_size": bert.hidden_size,
        "num_hidden_layers": bert.num_layers,
        "num_attention_heads": bert.num_heads,
        "intermediate_size": bert.intermediate_size,
        "max_position_embeddings": bert.max_positions,
        "type_vocab_size": bert.token_types,
        "hidden_act": "gelu",
        "hidden_dropout_prob": bert.dropout,
        "attention_probs_dropout_prob": bert.dropout,
        "layer_norm_eps": bert.layer_norm_eps,
        "initializer_range": bert.initializer_range,
        "pad_token_id": 0,
    }


def _their_arrays(export: Export, layout: Format) -> dict[str, np.ndarray]:
    """The export's arrays by their names, in the published order, with BatchNorm counters and position ids."""
    params, stats = expected(export.config)
    arrays = {**flatten(export.params), **flatten(export.stats)}
    renamer = Renamer(layout)
    wanted = [name for name in {**params, **stats} if part_of(name) in layout.parts]
    heads = {f"{HEADS}/{name}": array for name, array in flatten(export.heads).items()}
    head_modules = [ours for ours in layout.modules if part_of(ours) == HEADS]
    wanted += [f"{module}/{leaf}" for module in head_modules for leaf in ("kernel", "bias")]
    arrays |= heads
    raise_all(
        f"a {layout.name} checkpoint has no names for arrays of this model",
        [f"extra: {name}" for name in wanted if renamer.theirs(name) is None],
    )
    raise_all(
        f"a {layout.name} checkpoint needs arrays that the export lacks",
        [f"missing: {renamer.theirs(name)}, from {name}" for name in wanted if name not in arrays],
    )
    counts = export.extra.get("num_batches_tracked", 0)
    named: dict[str, np.ndarray] = {}
    if layout.name in ("pretraining", "retrieval"):
        positions = np.arange(export.config.bert.max_positions, dtype=np.int64)[None]
        named["enc.txt_embeddings.position_ids"] = positions
    for name in sorted(wanted, key=renamer.order):
        theirs = renamer.theirs(name)
        assert theirs is not None
        named[theirs] = to_theirs(name, np.asarray(arrays[name]))
        if theirs.endswith(".running_var"):
            counter = theirs.removesuffix("running_var") + "num_batches_tracked"
            count = counts.get(counter, 0) if isinstance(counts, dict) else counts
            named[counter] = np.array(count, np.int64)
    return named


def _published_order(tensors: dict[str, Any], named: dict[str, np.ndarray]) -> list[str]:
    """The names in the published order: aliases follow the image projection and the MLM head's transform."""
    aliases = [name for name in tensors if name not in named]
    order: list[str] = []
    for name in named:
        order.append(name)
        if name.endswith("img_embeddings.img_embeddings.bias"):
            order += [alias for alias in aliases if "img_embeddings." in alias]
        elif name.endswith("predictions.transform.LayerNorm.bias"):
            order += [alias for alias in aliases if ".decoder." in alias]
    return order

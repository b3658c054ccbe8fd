"""Reads a checkpoint of any known format as the content of an export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from medvill_jax.hub.assignment import HEADS, Assignment, Checkpoint, assign, recognise_source
from medvill_jax.hub.errors import Allowed, HubError, raise_all
from medvill_jax.hub.export import Export, read_export
from medvill_jax.hub.files import is_export, read_json, read_source
from medvill_jax.hub.names import UPSTREAM
from medvill_jax.hub.network import expected
from medvill_jax.hub.sizes import Choices, infer_config
from medvill_jax.models.compat import Compat
from medvill_jax.trees import nest, part_of

VOCAB_FILES = ("vocab.txt", "tokenizer.json")


def import_checkpoint(
    path: Path,
    *,
    family: str = "auto",
    allow: Allowed | None = None,
    cast: bool = False,
    choices: Choices | None = None,
    tokenizer: Path | None = None,
    compat: str = "clean",
) -> tuple[Export, list[str]]:
    """Reads a weight file, or a folder with one.

    Args:
        path: weights in any known format, or an export.
        family: one of `names.FAMILIES`, or "auto".
        allow: names that may be missing, extra, misshaped or untied; those arrays are left out.
        cast: convert half and double precision to float32.
        choices: settings that checkpoints do not hold; the ids of [CLS] and [SEP] come from the vocabulary if there is
            one.
        tokenizer: a vocab.txt; None takes the one in the folder of the weights.
        compat: "clean", or "upstream" for the released code's behaviour at the checkpoint's stage.

    Returns:
        The content, and remarks as lines of text.

    Raises:
        HubError: the checkpoint is unreadable, unknown, or does not fit; lists every problem.
    """
    path = Path(path)
    if path.is_dir() and is_export(path):
        if family not in ("auto", "export"):
            raise HubError(f"{path} is an export of medvill_jax, not of format {family}")
        export = read_export(path)
        config = replace(export.config, compat=_compat(compat, export.stage)) if compat != "clean" else export.config
        return replace(export, config=config, vocab=tokenizer or export.vocab), []
    if family == "export":
        raise HubError(f"{path} is no export of medvill_jax")
    checkpoint = recognise_source(read_source(path), family)
    vocab = tokenizer or next(
        (
            checkpoint.source.folder / name
            for name in ("vocab.txt", "tokenizer.json")
            if (checkpoint.source.folder / name).is_file()
        ),
        None,
    )
    choices = _special_ids(choices or Choices(), vocab)
    config = infer_config(checkpoint, choices)
    config = replace(config, compat=_compat(compat, checkpoint.format.name))
    params, stats = expected(config)
    parts = parts_of(checkpoint)
    wanted = {name: shape for name, shape in {**params, **stats}.items() if part_of(name) in parts}
    assignment = assign(checkpoint, wanted, allow or Allowed(()), cast=cast)
    _check_heads(assignment, config.bert.hidden_size)
    raise_all(f"{path} ({checkpoint.format.name}) does not fit", assignment.problems)
    arrays = assignment.arrays
    export = Export(
        config=config,
        params=nest({name: array for name, array in arrays.items() if name in params}),
        stats=nest({name: array for name, array in arrays.items() if name in stats}),
        heads=nest({name: array for name, array in arrays.items() if part_of(name) == HEADS}).get(HEADS, {}),
        stage=checkpoint.format.name,
        parts=tuple(dict.fromkeys(part_of(name) for name in arrays if part_of(name) != HEADS)),
        vocab=vocab,
        extra=_extra(checkpoint, assignment),
    )
    return export, [*assignment.notes, *_casing(checkpoint)]


def parts_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Our top-level modules that a checkpoint must fill."""
    return (*checkpoint.format.parts, *(part for part in checkpoint.format.optional if checkpoint.has_part(part)))


def _compat(name: str, stage: str) -> Compat:
    try:
        return Compat.named(name, stage if stage in UPSTREAM else "pretraining")
    except ValueError as error:
        raise HubError(str(error)) from None


def _special_ids(choices: Choices, vocab: Path | None) -> Choices:
    if vocab is None:
        return choices
    if vocab.is_dir():
        vocab = next((vocab / name for name in VOCAB_FILES if (vocab / name).is_file()), vocab / VOCAB_FILES[0])
    try:
        if vocab.suffix == ".json":
            ids = (read_json(vocab).get("model") or {}).get("vocab") or {}
        else:
            lines = vocab.read_bytes().decode("utf-8").replace("\r\n", "\n").split("\n")
            ids = {piece: number for number, piece in enumerate(lines)}
    except (OSError, UnicodeDecodeError, AttributeError) as error:
        raise HubError(f"{vocab} is no vocabulary: {error}") from None
    if absent := [token for token in ("[CLS]", "[SEP]") if not isinstance(ids.get(token), int)]:
        raise HubError(f"{vocab} is no BERT vocabulary: it lacks {' and '.join(absent)}")
    return replace(choices, cls_id=ids["[CLS]"], sep_id=ids["[SEP]"])


def _check_heads(assignment: Assignment, hidden_size: int) -> None:
    """Checks that a head's layers fit each other, since the format does not fix the number of classes."""
    width = hidden_size
    for name, kernel in assignment.arrays.items():
        if part_of(name) != HEADS or not name.endswith("/kernel"):
            continue
        bias = assignment.arrays.get(name.removesuffix("kernel") + "bias")
        if kernel.ndim != 2 or kernel.shape[0] != width or (bias is not None and bias.shape != kernel.shape[1:]):
            shape = None if bias is None else bias.shape
            assignment.problems.append(
                f"misshaped: {name} is {kernel.shape} with a bias of {shape}, expected {width} inputs"
            )
        width = kernel.shape[-1] if kernel.ndim else 0


def _extra(checkpoint: Checkpoint, assignment: Assignment) -> dict[str, object]:
    """Entries that are needed to write the checkpoint back bitwise; they change no result."""
    counts = assignment.batches_tracked
    extra: dict[str, object] = {"source": checkpoint.format.name}
    if counts:
        equal = len(set(counts.values())) == 1
        extra["num_batches_tracked"] = next(iter(counts.values())) if equal else counts
    return extra


def _casing(checkpoint: Checkpoint) -> list[str]:
    file = checkpoint.source.folder / "tokenizer_config.json"
    if checkpoint.format.family == "huggingface" and file.is_file() and read_json(file).get("do_lower_case") is False:
        return ["the vocabulary is cased, but this package lower-cases text: cased word pieces are not used"]
    return []

"""Converts PyTorch checkpoints into exports and back.

    python -m medvill_jax.hub.convert --source=PATH --out=EXPORT
    python -m medvill_jax.hub.convert --source=EXPORT --out=FOLDER --to=upstream

PATH is a .bin, .pt, .pth or .safetensors file, or a folder with one (Hugging Face folders, sharded ones too):

  upstream      MedViLL as published: pre-trained, or fine-tuned for retrieval, report generation, VQA, classification
  huggingface   BERT of any size (bert-base-uncased, ClinicalBERT...), or ResNet
  torchvision   ResNet
  export        a folder that this program wrote

Sizes come from the checkpoint and its config.json. Every tensor that is missing, extra, misshaped, untied or of a wrong
type is reported at once, and nothing is written unless --allow covers each of them. No code in a file is ever run.

  convert a published model, to score it as published:
    python -m medvill_jax.hub.convert --source=mimic_par/pytorch_model.bin --out=exports/par --compat=upstream
  a BERT without pooler:
    python -m medvill_jax.hub.convert --source=bert/ --out=exports/bert --allow='pooler/.*'
  an export for PyTorch users, as a folder that AutoModel.from_pretrained loads without JAX:
    python -m medvill_jax.hub.convert --source=EXPORT --out=TORCH --to=transformers
  a classifier of films alone, as ONNX:
    python -m medvill_jax.hub.convert --source=FINDINGS --out=ONNX --to=onnx
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from medvill_jax import private
from medvill_jax.commands import Exit, Parser, command
from medvill_jax.hub.errors import Allowed, HubError
from medvill_jax.hub.export import Export, write_export
from medvill_jax.hub.importer import import_checkpoint
from medvill_jax.hub.names import FAMILIES
from medvill_jax.hub.onnx_writer import write_onnx
from medvill_jax.hub.push import WARNING, push
from medvill_jax.hub.sizes import Choices
from medvill_jax.hub.torch_writer import write_upstream
from medvill_jax.hub.transformers_writer import write_transformers
from medvill_jax.models import attention_masks
from medvill_jax.trees import flatten


def convert(
    source: Path,
    out: Path,
    *,
    family: str = "auto",
    to: str = "export",
    allow: Sequence[str] = (),
    cast: bool = False,
    choices: Choices | None = None,
    tokenizer: Path | None = None,
    compat: str = "clean",
) -> list[str]:
    """Converts a checkpoint; returns the lines to print.

    Args:
        source: weight file or folder, or an export.
        out: the folder to write.
        family, allow, cast, choices, tokenizer, compat: see `importer.import_checkpoint`; `allow` holds regexes.
        to: one of `FORMS`.

    Raises:
        HubError: see `importer.import_checkpoint` and the writers of `FORMS`.
    """
    if out.exists() and source.exists() and out.resolve() == source.resolve():
        raise HubError(f"--out={out} is the source itself; name another folder")
    export, notes = import_checkpoint(
        source,
        family=family,
        allow=Allowed(allow),
        cast=cast,
        choices=choices,
        tokenizer=tokenizer,
        compat=compat,
    )
    FORMS[to](out, export)
    arrays = {**flatten(export.params), **flatten(export.heads)}
    count = sum(array.size for array in arrays.values())
    return [*notes, f"{out}: {export.stage}, {count:,} parameters, {', '.join(export.parts)}"]


def _write(out: Path, export: Export) -> None:
    write_export(
        out,
        config=export.config,
        params=export.params,
        stats=export.stats,
        tokenizer_path=export.vocab,
        label_names=export.label_names,
        card={"source": f"Converted from a {export.stage} checkpoint."},
        heads=export.heads,
        stage=export.stage,
        extra=export.extra,
    )


# What can be written -> how.
FORMS = {"export": _write, "upstream": write_upstream, "transformers": write_transformers, "onnx": write_onnx}


def _parser() -> Parser:
    parser = Parser("python -m medvill_jax.hub.convert", __doc__)
    parser.add_argument("--source", type=Path, required=True, metavar="PATH", help="weight file or folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="written; replaces an older export")
    parser.add_argument("--format", choices=("auto", *FAMILIES), default="auto", help="of the source; default: auto")
    parser.add_argument("--to", choices=tuple(FORMS), default="export", help="what to write; default: export")
    parser.add_argument(
        "--allow",
        action="extend",
        nargs="+",
        default=[],
        metavar="REGEX",
        help="our names, or the source's, of tensors that may be missing, extra or misshaped; they are left out",
    )
    parser.add_argument("--cast", action="store_true", help="read float16, bfloat16 and float64 as float32")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="PATH", help="vocab.txt; default: the one next to the weights"
    )
    parser.add_argument("--num_heads", type=int, metavar="N", help="attention heads, if there is no config.json")
    parser.add_argument("--image_size", type=int, metavar="PIXELS", help="side of the input; default: 512 or what fits")
    parser.add_argument(
        "--attention", choices=attention_masks.KINDS, default="bar", help="attention mask of the model; default: bar"
    )
    parser.add_argument(
        "--compat",
        choices=("clean", "upstream"),
        default="clean",
        help="upstream: record the released code's behaviour at the checkpoint's stage",
    )
    parser.add_argument(
        "--push", metavar="ORG/NAME", help="upload what was written to this repository of Hugging Face, a private one"
    )
    parser.add_argument("--public", action="store_true", help="let --push make or write a public repository")
    private.add_flag(parser)
    return parser


@command(interrupted="the same command starts anew")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = _parser()
    flags = parser.parse_args(argv)
    if flags.public and not flags.push:
        parser.error("--public is for --push")
    choices = Choices(num_heads=flags.num_heads, image_size=flags.image_size, attention=flags.attention)
    with private.files(flags.shared):
        lines = convert(
            flags.source,
            flags.out,
            family=flags.format,
            to=flags.to,
            allow=flags.allow,
            cast=flags.cast,
            choices=choices,
            tokenizer=flags.tokenizer,
            compat=flags.compat,
        )
    print("\n".join(lines))
    if flags.push:
        print(f"note: {WARNING}", file=sys.stderr)
        print(push(flags.out, flags.push, public=flags.public))
    return Exit.DONE


def program(argv: Sequence[str] | None = None) -> int:
    """`main`, in a process that is its own: converting needs no accelerator and should occupy none."""
    jax.config.update("jax_platforms", "cpu")
    return main(argv)


if __name__ == "__main__":
    sys.exit(program())

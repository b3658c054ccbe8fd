"""`python -m data_prep COMMAND`: official files, or your own image-text pairs, -> a data set that training reads."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medvill_jax.data.records import DataError

_DESCRIPTION = """\
Prepares data sets for training. Every command writes one folder, --out, that holds ArrayRecord files, the vocabulary,
build_report.json (what was found, kept and rejected, label counts, text lengths) and rejected.jsonl (every row that was
left out, and why). --out appears only once it is complete; running the same command again changes nothing.

  No data yet?   python -m data_prep phantom --out=TREE --studies=200 --seed=0
                 python -m data_prep mimic_cxr --source=TREE --out=DATA
  MIMIC-CXR:     python -m data_prep mimic_cxr --source=/path/to/mimic --out=DATA
  Your own data: python -m data_prep pairs --source=index.jsonl --out=DATA
  Then:          python run.py --config=configs/pretrain.py:small --config.data.path=DATA
"""

_PHANTOM = """\
Draws made-up chest radiographs with matching reports and labels, and writes them as a tree in the layout of MIMIC-CXR:
everything else runs on it as on the real data, and no patient is in it.
"""

_MIMIC = """\
Reads the official MIMIC-CXR-JPG files (images and csv tables, .csv or .csv.gz) and the MIMIC-CXR reports:

  SOURCE/mimic-cxr-jpg/mimic-cxr-2.0.0-{split,metadata,chexpert}.csv.gz     or all of this directly in SOURCE
  SOURCE/mimic-cxr-jpg/files/p10/p10000032/s50414267/<dicom_id>.jpg
  SOURCE/mimic-cxr/files/p10/p10000032/s50414267.txt                        (elsewhere: --reports)

A record is one image of a chosen view with the chosen sections of its report. Studies whose report has none of these
sections are left out; that is expected and does not count towards --max_rejected.
"""

_PAIRS = """\
Reads a .jsonl index with one JSON object per line:

  {"id": "a1", "image": "images/a1.jpg", "text": "Small left effusion.", "split": "train",
   "labels": ["Pleural Effusion"], "subject_id": "p7", "view": "PA"}

  id, image, text  required; image is a path relative to the index (JPEG, PNG, TIFF, ...; 8 or 16 bits, gray or colour)
  split            train / valid, validate, validation, val, dev / test; rows without one are split 80 / 10 / 10 by
                   subject, from --seed
  labels           a list of positive findings, or an object such as {"Edema": 1, "Pneumonia": -1, "Fracture": null}
                   with 1 positive, 0 negative, -1 uncertain, null not mentioned
  subject_id       (or patientid), study_id, view: optional

The findings are the 14 of CheXpert, unless --label_names or a labels.txt beside the index (one per line) name others.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 done, 2 something to correct (said on stderr), 130 interrupted."""
    args = _parser().parse_args(argv)
    try:
        return args.run(args)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted; nothing was written to --out", file=sys.stderr)
        return 130


def _phantom(args: argparse.Namespace) -> int:
    from data_prep.phantom import write_tree

    if args.studies < 1:
        raise DataError(f"--studies={args.studies}: at least one")
    counts = write_tree(
        args.out,
        studies=args.studies,
        seed=args.seed,
        image_size=args.image_size,
        dicom=args.dicom,
        progress=args.progress,
    )
    print("\n".join(f"{name:<12} {count:>9}" for name, count in counts.items()))
    print(f"Next: python -m data_prep mimic_cxr --source={args.out} --out=DATA")
    return 0


def _mimic_cxr(args: argparse.Namespace) -> int:
    from data_prep import mimic_cxr

    return _finish(
        mimic_cxr.prepare(
            args.source,
            args.out,
            views=args.views,
            sections=args.sections,
            labels=args.labels,
            reports_root=args.reports,
            **_common(args),
        ),
        args.out,
    )


def _pairs(args: argparse.Namespace) -> int:
    from data_prep import pairs

    return _finish(
        pairs.prepare(args.source, args.out, label_names=args.label_names, seed=args.seed, **_common(args)), args.out
    )


def _finish(report: dict[str, Any], out: Path) -> int:
    from data_prep.build import summary

    print(summary(report, out))
    return 0


def _common(args: argparse.Namespace) -> dict[str, Any]:
    names = ("image_size", "tokenizer", "vocab_size", "max_rejected", "limit", "workers", "progress")
    return {name: getattr(args, name) for name in names}


def _comma_list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _views(text: str) -> tuple[str, ...]:
    return () if text.strip().lower() == "all" else _comma_list(text)


def _label_names(text: str) -> tuple[str, ...]:
    path = Path(text)
    if path.suffix != ".txt":
        return _comma_list(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {text}")
    return tuple(line.strip() for line in path.read_text("utf-8").splitlines() if line.strip())


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="python -m data_prep", description=_DESCRIPTION, formatter_class=raw)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    phantom = commands.add_parser("phantom", help="made-up studies to try everything on", description=_PHANTOM)
    phantom.formatter_class = raw
    phantom.add_argument("--out", type=Path, required=True, help="folder to make, for mimic_cxr --source")
    phantom.add_argument("--studies", type=int, required=True, help="how many studies")
    phantom.add_argument("--seed", type=int, default=0, help="same seed, same tree (default: 0)")
    phantom.add_argument("--image_size", type=int, default=512, help="pixels along a side (default: 512)")
    phantom.add_argument("--dicom", action="store_true", help="write DICOM files too")
    _add_quiet(phantom)
    phantom.set_defaults(run=_phantom)

    mimic = commands.add_parser("mimic_cxr", help="the official MIMIC-CXR files", description=_MIMIC)
    mimic.formatter_class = raw
    mimic.add_argument("--source", type=Path, required=True, help="your copy of MIMIC-CXR(-JPG), see above")
    _add_out(mimic)
    mimic.add_argument("--views", type=_views, default=("AP",), help="e.g. AP,PA,LATERAL, or all (default: AP)")
    mimic.add_argument(
        "--sections",
        type=_comma_list,
        default=("findings",),
        help="report sections that make up the text, in this order, e.g. findings,impression (default: findings)",
    )
    mimic.add_argument(
        "--labels", choices=("chexpert", "negbio"), default="chexpert", help="the labeler (default: %(default)s)"
    )
    mimic.add_argument("--reports", type=Path, help="folder whose files/ holds the .txt reports, if it is not found")
    _add_common(mimic)
    mimic.set_defaults(run=_mimic_cxr)

    pairs = commands.add_parser("pairs", help="your own images and texts", description=_PAIRS)
    pairs.formatter_class = raw
    pairs.add_argument("--source", type=Path, required=True, help="the .jsonl index, or the folder of an index.jsonl")
    _add_out(pairs)
    pairs.add_argument("--label_names", type=_label_names, help="findings as a,b,c or a .txt with one per line")
    pairs.add_argument("--seed", type=int, default=0, help="of the split of rows without one (default: 0)")
    _add_common(pairs)
    pairs.set_defaults(run=_pairs)
    return parser


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, help="folder to make; must not hold anything else")


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image_size",
        type=int,
        default=512,
        help="images with a longer short side are reduced to it, aspect kept; none is enlarged (default: 512)",
    )
    parser.add_argument(
        "--tokenizer",
        help="a vocab.txt, a folder with one, or a Hugging Face name such as bert-base-uncased (may download); "
        "default: a WordPiece vocabulary trained on the texts of the train split",
    )
    parser.add_argument("--vocab_size", type=int, help="largest vocabulary to train (default: 30522)")
    parser.add_argument(
        "--max_rejected",
        type=float,
        default=0.01,
        help="fail if more than this share of the rows is faulty; OUT.rejected.jsonl lists them (default: 0.01)",
    )
    parser.add_argument("--limit", type=int, help="only the first so many rows, for a trial")
    parser.add_argument("--workers", type=int, help="image threads (default: one per core, at most 16)")
    _add_quiet(parser)


def _add_quiet(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quiet", dest="progress", action="store_false", help="no progress bar")


if __name__ == "__main__":
    sys.exit(main())

"""`python -m data_prep COMMAND`: makes a data set for training from official files or your own image-text pairs."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from typing import Any

from data_prep import flags, sources
from medvill_jax import beam_runner, private
from medvill_jax.commands import Exit, command
from medvill_jax.data.records import DataError


@command(failed=Exit.USAGE, interrupted="--out is not finished; the same command resumes where this one stopped")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: 0 done, 2 an error for the user (on stderr), 130 interrupted."""
    args = flags.parser().parse_args(argv)
    with private.files(args.shared):
        return _COMMANDS.get(args.command, _source)(args)


def _phantom(args: argparse.Namespace) -> int:
    from data_prep.phantom import vqa, write_tree

    if args.studies < 1:
        raise DataError(f"--studies={args.studies}: at least one")
    if args.layout != "mimic_cxr":
        return _phantom_of(args)
    if args.vqa:
        vqa.check(args.studies, args.seed)
    counts = write_tree(
        args.out,
        studies=args.studies,
        seed=args.seed,
        image_size=args.image_size,
        dicom=args.dicom,
        masks=args.masks,
        erased=args.erased,
        priors=args.priors,
        difficulty=args.difficulty,
        progress=args.progress,
    )
    questions = vqa.write_questions(args.out, args.out / "vqa") if args.vqa else {}
    print("\n".join(f"{name:<12} {count:>9}" for name, count in {**counts, **questions}.items()))
    print(f"Next: python -m data_prep mimic_cxr --source={args.out} --out=DATA" + " --priors" * args.priors)
    if args.vqa:
        print(
            f"then: python -m data_prep vqa_rad --source={args.out / 'vqa'} --out=QUESTIONS --tokenizer=DATA/tokenizer"
        )
    return Exit.DONE


def _phantom_of(args: argparse.Namespace) -> int:
    """Phantom studies in the layout of a source of the table."""
    from data_prep.sources import table

    others = [name for name in ("dicom", "vqa", "masks", "erased", "priors") if getattr(args, name)]
    others += ["difficulty"] if args.difficulty != "standard" else []
    if others:
        raise DataError(f"--{', --'.join(others)}: only with --layout=mimic_cxr")
    counts = sources.module(args.layout).write_tree(args.out, args.studies, args.seed, args.image_size)
    print("\n".join(f"{name:<12} {count:>9}" for name, count in counts.items()))
    accept = " --accept_unverified" if table.sources()[args.layout].unverified else ""
    print(f"Next: python -m data_prep {args.layout} --source={args.out} --out=DATA{accept}")
    return Exit.DONE


def _mimic_cxr(args: argparse.Namespace) -> int:
    from data_prep import mimic_cxr

    names = ("views", "sections", "fallback", "labels", "uncertain", "split", "seed", "one_image_per_study", "images")
    names += ("second_view", "priors")
    options = {name: getattr(args, name) for name in names}
    return _finish(
        mimic_cxr.prepare(args.source, args.out, reports_root=args.reports, **options, **_common(args)), args
    )


def _open_i(args: argparse.Namespace) -> int:
    from data_prep import open_i

    names = ("views", "sections", "fallback", "labels", "uncertain", "marks", "seed")
    options = {name: getattr(args, name) for name in names}
    return _finish(open_i.prepare(args.source, args.out, **options, **_common(args)), args)


def _vqa_rad(args: argparse.Namespace) -> int:
    from data_prep import vqa_rad

    options = {name: getattr(args, name) for name in ("split", "organs", "seed")}
    return _finish(vqa_rad.prepare(args.source, args.out, **options, **_common(args)), args)


def _pairs(args: argparse.Namespace) -> int:
    from data_prep import pairs

    options = {name: getattr(args, name) for name in ("label_names", "split", "seed")}
    return _finish(pairs.prepare(args.source, args.out, **options, **_common(args)), args)


def _source(args: argparse.Namespace) -> int:
    """A source of the table; the options of its `prepare` are flags of the same names."""
    prepare = sources.module(args.command).prepare
    own = {
        name: getattr(args, name)
        for name, parameter in inspect.signature(prepare).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    return _finish(prepare(args.source, args.out, views=args.views, **{**_common(args), **own}), args)


_COMMANDS = {"phantom": _phantom, "mimic_cxr": _mimic_cxr, "open_i": _open_i, "vqa_rad": _vqa_rad, "pairs": _pairs}


def _finish(report: dict[str, Any], args: argparse.Namespace) -> int:
    from data_prep.build import summary

    print(summary(report, args.out))
    return Exit.DONE


def _common(args: argparse.Namespace) -> dict[str, Any]:
    names = ("image_size", "square", "dicom", "tokenizer", "vocab_size", "max_rejected", "limit", "workers")
    options = {name: getattr(args, name) for name in (*names, "contact_sheet", "progress")}
    options["beam"] = beam_runner.chosen(args)
    return options


if __name__ == "__main__":
    sys.exit(main())

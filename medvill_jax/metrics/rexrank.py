"""Writes generated reports in the format of ReXrank's evaluation script.

ReXrank (Zhang et al. 2024, rexrank.ai) describes a test set as one JSON object, study -> its images and sections, and
scores the same object with the key `model_prediction` added to every study. The leaderboard itself takes a program that
writes such a file from a description; this module is for running the evaluation script by yourself.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from medvill_jax import private
from medvill_jax.commands import Exit, Parser, command
from medvill_jax.errors import UserError
from medvill_jax.metrics.predictions import Prediction, read

_HELP = """\
Writes generated reports in the format of ReXrank's evaluation script.

  python -m medvill_jax.metrics.rexrank predictions.jsonl --test=ReXRank_MIMICCXR_test.json --out=submission.json

The test description comes from ReXrank: one object, study -> {"image_path": [...], "key_image_path": "...", ...}. The
id of a prediction names its study in one of three ways:

  - the name of the study, with or without a leading s
  - the path of an image of the study without .png or .jpg, or an ending of this path that no other study has
  - for Open-I, an image of the study (3030_IM-1405-1001.dcm belongs to CXR3030_IM-1405)

If several images of a study have predictions, that of the key image is used, else the first. Every study needs a
prediction. The output is the description with model_prediction added.

Exit status: 0 done, 1 something to correct, said in one line on stderr.
"""
# Names of studies and images of Open-I, which have their number once or twice.
_OPEN_I = re.compile(r"(?:CXR)?([0-9]+)_(?:\1_)?(IM-[0-9]+)(?:-.*)?")


class RexrankError(UserError):
    """The description and the predictions do not fit; the message says why, and is shown without a trace."""


def submission(studies: dict[str, dict[str, Any]], predictions: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
    """The description with `model_prediction` added to every study.

    Raises:
      RexrankError: studies without a prediction, with how many and one of them.
    """
    hypotheses = {prediction.id: prediction.hypothesis for prediction in predictions}
    for prediction in predictions:
        hypotheses.setdefault(_of_open_i(prediction.id), prediction.hypothesis)
    names = {study: _names(study, fields) for study, fields in studies.items()}
    studies_with = Counter(name for of_study in names.values() for name in set(of_study))
    out: dict[str, dict[str, Any]] = {}
    missing: list[str] = []
    for study, fields in studies.items():
        unique = (name for name in names[study] if name in hypotheses and studies_with[name] == 1)
        if (name := next(unique, None)) is None:
            missing.append(study)
        else:
            out[study] = {**fields, "model_prediction": hypotheses[name]}
    if missing:
        raise RexrankError(f"{len(missing)} of {len(studies)} studies have no prediction (such as {missing[0]!r})")
    return out


def _names(study: str, fields: dict[str, Any]) -> list[str]:
    """The ids that a prediction for a study may have, best first."""
    images = fields.get("image_path") or []
    paths = [fields.get("key_image_path"), *(images if isinstance(images, list) else [images])]
    names = [study, f"s{study}"]
    for path in paths:
        parts = PurePosixPath(path).with_suffix("").parts if isinstance(path, str) and path else ()
        names += ["/".join(parts[start:]) for start in range(parts[:1] == ("/",), len(parts))]
    return [*names, _of_open_i(study)]


def _of_open_i(name: str) -> str:
    """One name for the study and all images of an Open-I report; other names stay."""
    return _OPEN_I.sub(r"Open-I \1 \2", name) if _OPEN_I.fullmatch(name) else name


def export(predictions: Path, test: Path, target: Path) -> int:
    """Writes the `submission` of a prediction file; `target` appears only once it is complete.

    Returns:
      The number of studies.

    Raises:
      RexrankError, PredictionError: a file that cannot be read or written, or studies without a prediction.
    """
    rows = read(predictions)
    try:
        studies: Any = json.loads(test.read_text(encoding="utf-8"))
    except OSError as error:
        raise RexrankError(f"{test}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise RexrankError(f"{test}: not a JSON file ({type(error).__name__})") from error
    if not isinstance(studies, dict) or not studies or not all(isinstance(each, dict) for each in studies.values()):
        raise RexrankError(f"{test}: expected one object, study -> its images and sections")
    out = submission(studies, rows)
    if target.is_dir():
        raise RexrankError(f"{target}: is a folder, not a file to write")
    try:
        private.write(target, json.dumps(out, indent=2) + "\n")
    except OSError as error:
        raise RexrankError(f"{target}: {error.strerror or error}") from error
    return len(out)


@command(interrupted="nothing was written")
def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status: 0 done, 1 something to correct, 130 interrupted."""
    parser = Parser("python -m medvill_jax.metrics.rexrank", _HELP, status=Exit.ERROR)
    parser.add_argument("predictions", type=Path, help="predictions.jsonl of a run")
    parser.add_argument("--test", type=Path, required=True, metavar="JSON", help="ReXrank's description of a test set")
    parser.add_argument("--out", type=Path, required=True, metavar="JSON", help="the file to write")
    private.add_flag(parser)
    args = parser.parse_args(argv)
    with private.files(args.shared):
        count = export(args.predictions, args.test, args.out)
    print(f"{count} studies: {args.out}")
    return Exit.DONE


if __name__ == "__main__":
    sys.exit(main())

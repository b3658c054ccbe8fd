"""`medvill predict`: a model is asked about films."""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medvill_jax import private
from medvill_jax.app.defaults import DECODING
from medvill_jax.cli import answers, films, shown, workers
from medvill_jax.cli.many import many, told
from medvill_jax.commands import Exit, Parser, command
from medvill_jax.errors import ConfigError, UserError
from medvill_jax.films.quiet import quiet
from medvill_jax.spread.question import Question

if TYPE_CHECKING:
    from medvill_jax.app.model import Model

_HELP = """\
Asks a trained model about films: PNG, JPEG, TIFF and others, or DICOM. One film is answered in words, or with --json in
one JSON object; several films, a folder, or a list of paths on stdin (-) in one JSON object per line.

  medvill predict film.dcm --model=EXPORT --task=findings
  medvill predict film.png --model=EXPORT --task=report --json
  medvill predict film.png --model=EXPORT --task=report --decode=beam_size=4 --decode=max_len=60
  medvill predict film.png --model=EXPORT --task=report --verify=mark
  medvill predict film.png --model=EXPORT --task=ask --question="Is there an effusion?"
  medvill predict film.png --model=EXPORT --task=match --text="Small left effusion." --text="No acute findings."
  medvill predict film.png --model=EXPORT --task=ground --phrase="Small left pleural effusion."
  medvill predict film.png --model=EXPORT --task=findings --finding=Edema --explain=edema.png
  medvill predict films --model=EXPORT --task=report --out=reports.jsonl
  find films -name "*.dcm" | medvill predict - --model=EXPORT --task=findings --out=findings.jsonl
  medvill predict DATA --split=test --model=EXPORT --task=findings --out=test.jsonl

EXPORT is the folder that training ends with, such as RUN/export, gs://BUCKET/RUN/export, or the name of a Hugging Face
repository in the cache of this machine. What it can be asked depends on what it was trained for.

--explain=FILE.png draws what in one film speaks for its likeliest finding, or for --finding=NAME; for --word=WORD of
its report (the word, or its number from 0); or for the answer. docs/predict.md tells how far to trust such a map.

In a folder, files of images count, and DICOM of any name. A film that cannot be read is named on stderr and has a line
with "error" in the output. With --out the same command goes on where it stopped: films that were answered by the same
model with the same options are left out, those that failed are tried again.

--split asks about the films of a data set that `medvill prep` prepared, which are named by the identifiers of their
records. With --beam_runner=DirectRunner --num_workers=8 processes of this host answer, with other runners of Apache
Beam those of a cluster (docs/scale.md); films that cannot be read are then in a file of their own beside --out.

Nothing here is a medical device. Exit status: 0 done, 2 something to correct, or films that cannot be read, 130
interrupted.
"""

# From films to their answers, in order.
Ask = Callable[[Sequence[Any]], Iterator[Any]]
TASKS = ("report", "findings", "ask", "match", "ground")
# Flag -> the task that it is of, the name of its option there, and whether the task needs it.
_OF_TASK = {
    "question": ("ask", "question", True),
    "text": ("match", "texts", True),
    "phrase": ("ground", "phrase", True),
    "report": ("findings", "report", False),
    "decode": ("report", "decode", False),
    "verify": ("report", "verify", False),
    "threshold": ("report", "threshold", False),
}
# Flag of an explanation -> the task that it is for.
_EXPLAINED = {"finding": "findings", "word": "report"}


def parser() -> Parser:
    """The parser of the subcommand."""
    out = Parser("medvill predict", _HELP)
    out.add_argument("films", nargs="+", metavar="FILM", help="file, folder, or - for a list of paths on stdin")
    out.add_argument("--split", metavar="NAME", help="FILM is a prepared data set, of which this split is asked about")
    out.add_argument("--model", required=True, metavar="EXPORT", help="trained model")
    out.add_argument("--task", choices=TASKS, help="may be left out where the model can do one task only")
    out.add_argument("--question", metavar="TEXT", help="of --task=ask")
    out.add_argument("--text", action="append", metavar="TEXT", help="of --task=match, once for every text to compare")
    out.add_argument("--phrase", metavar="TEXT", help="of --task=ground: its box is in 0..1 of the film's sides")
    out.add_argument(
        "--report",
        metavar="TEXT",
        help="the report of the one film, for --task=findings of a model that was trained on films with their reports",
    )
    out.add_argument(
        "--decode",
        action="append",
        metavar="NAME=VALUE",
        help=f"how a report is written, instead of as in training: {', '.join(DECODING)}; may be repeated",
    )
    out.add_argument(
        "--verify",
        nargs="?",
        const="mark",
        choices=("mark", "drop", "score"),
        help="check each sentence of a report against its film: mark (default) or drop those that it does not support, "
        "or only score them; mark and drop take an export that `medvill calibrate` has measured",
    )
    out.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help="least probability of a sentence that --verify keeps (default: 0.5)",
    )
    out.add_argument("--explain", type=Path, metavar="FILE", help=".png of what in the film speaks for the answer")
    out.add_argument("--finding", metavar="NAME", help="to explain (default: the likeliest)")
    out.add_argument("--word", metavar="WORD", help="of the report to explain, or its number from 0")
    out.add_argument(
        "--explain_method", "--explain-method", metavar="NAME", help="rollout, chefer, gradcam or occlusion"
    )
    out.add_argument("--json", action="store_true", help="answer for one film as JSON")
    out.add_argument("--out", type=Path, metavar="FILE", help=".jsonl of answers, continued if it exists")
    out.add_argument("--batch_size", type=int, metavar="N", help="films that are computed at a time (default: 16)")
    workers.add_flags(out)
    private.add_flag(out)
    return out


@command(failed=Exit.USAGE, interrupted="the same command goes on after the answers that --out holds")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand; returns its exit status."""
    args = parser().parse_args(argv)
    quiet()
    if args.task:
        _options(args, args.task)  # what is wrong with it shows before anything is loaded
    beam = workers.chosen(args)
    named = films.named(args.films) if args.split is None else films.of_split(args.films, args.split)
    if args.report is not None and not named.single:
        raise ConfigError("--report belongs to one film: ask about one film at a time")
    if args.explain is not None and not (named.single and args.out is None):
        raise ConfigError("--explain is for one film, whose answer is printed: name one film and leave out --out")

    from medvill_jax.app.model import BATCH_SIZE, load

    model = load(args.model)
    task = args.task or _only_task(model)
    options = _options(args, task)
    batch_size = BATCH_SIZE if args.batch_size is None else args.batch_size
    ask = functools.partial(model.stream, task=task, batch_size=batch_size, **options)
    explained = _explained(args, task)
    if args.explain is not None:
        model.options("explain", **explained)  # what is wrong with it shows before there is an answer
    if named.single and args.out is None:
        [film] = named.films.values()
        return _one(ask, film, args.json, functools.partial(_explain, model, args.explain, explained))
    made_with = {"weights": model.weights, "options": model.options(task, **options)}
    with private.files(args.shared):
        if beam is None:
            return many(functools.partial(_streamed, ask), named, args.out, made_with)
        question = Question(args.model, task, options, batch_size, made_with)
        return many(workers.asking(beam, question, args), named, args.out, made_with, workers.rejected(args))


def _streamed(ask: Ask, films: Sequence[Any], each: Callable[[dict[str, Any]], None]) -> None:
    for answer in ask(films):
        each(answer.to_dict())


def _options(args: argparse.Namespace, task: str) -> dict[str, Any]:
    """The options of a task. Raises `ConfigError` if one is missing, or if it is another task's."""
    options = {}
    for flag, (owner, name, needed) in _OF_TASK.items():
        value = getattr(args, flag)
        if value is None and task == owner and needed:
            raise ConfigError(f"--task={task} needs --{flag}=TEXT")
        if value is not None and task != owner:
            raise ConfigError(f"--task={task} takes no --{flag}, which is for --task={owner}")
        if value is not None:
            options[name] = value
    decode = options.pop("decode", ())
    return options | dict(map(_decoding, decode))


def _decoding(word: str) -> tuple[str, Any]:
    """A setting of the decoder from its words. Raises `ConfigError` if there is no such setting or value."""
    name, equals, value = word.partition("=")
    if not equals or name not in DECODING:
        raise ConfigError(f"--decode={word}: give NAME=VALUE, where NAME is one of {', '.join(DECODING)}")
    try:
        return name, json.loads(value)
    except ValueError:
        raise ConfigError(f"--decode={word}: the value is no number") from None


def _explained(args: argparse.Namespace, task: str) -> dict[str, Any]:
    """The options of an explanation, those of `Model.explain`. Raises `ConfigError` if they do not fit."""
    given = {name for name in ("finding", "word", "explain_method") if getattr(args, name) is not None}
    if args.explain is None:
        if given:
            raise ConfigError(f"--{min(given)} is for an explanation: give --explain=FILE.png")
        return {}
    if args.explain.suffix.lower() != ".png":
        raise ConfigError(f"--explain={args.explain}: a map is written as PNG; name a file that ends with .png")
    if task in ("match", "ground"):
        raise ConfigError(f"--explain is for findings, report and ask, not for --task={task}")
    for flag, owner in _EXPLAINED.items():
        if flag in given and task != owner:
            raise ConfigError(f"--task={task} takes no --{flag}, which is for --task={owner}")
    if task == "report" and args.word is None:
        raise ConfigError("--task=report with --explain needs --word=WORD, a word of the report or its number from 0")
    word = args.word if args.word is None or not args.word.lstrip("-").isdigit() else int(args.word)
    options = {
        "finding": args.finding,
        "word": word,
        "method": args.explain_method,
        "question": args.question,
        "report": args.report,
    }
    return {name: value for name, value in options.items() if value is not None}


def _explain(model: Model, out: Path | None, options: dict[str, Any], answer: Any) -> str | None:
    """Draws why a film has its answer; returns what the picture shows, in words."""
    if out is None:
        return None
    given = {"report": answer} if answer.task == "report" else {}
    heat: Any = model.explain(answer.film, **options, **given)
    heat.save(out)
    for warning in heat.warnings:
        if warning not in answer.warnings:
            print(f"warning: {warning}", file=sys.stderr)
    return f"{out}: what speaks for {heat.target}, by {heat.method}"


def _only_task(model: Model) -> str:
    match model.tasks:
        case (task,):
            return task
        case ():
            raise ConfigError(f"this export was trained for {model.export.stage}, and answers nothing about films")
        case tasks:
            raise ConfigError(f"this export can do {', '.join(tasks)}: choose with --task")


def _one(ask: Ask, film: Any, as_json: bool, explain: Callable[[Any], str | None]) -> int:
    """Prints the answer for one film, and draws its explanation."""
    [answer] = ask([film])
    if answer.error is not None:
        raise UserError(told(answer.film, answer.error))
    sys.stdout.write(answers.line(answer.to_dict()) if as_json else shown.text(answer) + "\n")
    for warning in () if as_json else answer.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if shows := explain(answer):
        print(shows, file=sys.stderr)
    return Exit.DONE

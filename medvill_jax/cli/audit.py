"""`medvill audit`: does a model look at the films that it is asked about?"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medvill_jax import private
from medvill_jax.audit.answers import KEYS
from medvill_jax.commands import Exit, Parser, command
from medvill_jax.errors import ConfigError
from medvill_jax.films.quiet import quiet

_HELP = """\
Does a model look? Asks it about films, and again with another patient's film, a black one and a mirrored one in place
of each; says how much of its figures is due to the film, with 95 % intervals, and how many of its reports stand in the
training split. Any model: an export of ours, a function in Python, or a program in any language.

  medvill audit DATA --task=findings --model=EXPORT --out=AUDIT
  medvill audit DATA --task=report --model=EXPORT --out=AUDIT --card
  medvill audit QUESTIONS --task=ask --callable=package.module:function --out=AUDIT
  medvill audit QUESTIONS --task=ask --command="my-program {requests} {predictions}" --out=AUDIT
  medvill audit QUESTIONS --task=ask --out=AUDIT

DATA is a prepared data set; --task=ask needs one of questions. AUDIT is a folder: audit.html, audit.json, the films,
and for every condition requests.jsonl and predictions.jsonl. The last command writes films and requests only: answer
each requests.jsonl in a predictions.jsonl beside it, and give the same command again.

  {"id": "5f2c...", "film": "../films/true/9a41....png", "question": "Is there an effusion?"}     a request
  {"id": "5f2c...", "answer": "yes"}     its prediction; "report": TEXT or "findings": {NAME: PROBABILITY} elsewhere

--erased=FOLDER adds films without one of their findings, FOLDER/ID/FINDING.jpg, and the same change at another place.
`medvill prep phantom --erased` writes them for drawn films. --card writes the result into the model card of the export.

Nothing here is a medical device. AUDIT holds films of patients. Exit status: 0 done, 2 something to correct, said in
one line, 130 interrupted; the same command goes on.
"""


def parser() -> Parser:
    """The parser of the subcommand."""
    out = Parser("medvill audit", _HELP)
    out.add_argument("data", metavar="DATA", help="prepared data set")
    out.add_argument("--task", choices=[*KEYS], required=True, help="what is asked about films")
    out.add_argument("--out", type=Path, required=True, metavar="AUDIT", help="folder, continued if it exists")
    who = out.add_mutually_exclusive_group()
    who.add_argument("--model", metavar="EXPORT", help="trained model")
    who.add_argument(
        "--callable", metavar="NAME", help="package.module:function, called as f(film) or f(film, question)"
    )
    who.add_argument(
        "--command", metavar="WORDS", help="a program and its words, {requests} and {predictions} among them"
    )
    out.add_argument("--split", default="test", help="of the data set (default: %(default)s)")
    out.add_argument("--films", type=int, metavar="N", help="at most so many, drawn at random (default: all)")
    out.add_argument("--erased", type=Path, metavar="FOLDER", help="films without one of their findings")
    out.add_argument("--seed", type=int, default=0, help="of everything that is drawn (default: %(default)s)")
    out.add_argument(
        "--margin", type=float, default=0.05, help="what a model that does not look may gain (default: %(default)s)"
    )
    out.add_argument("--card", action="store_true", help="write the result into the README.md of --model")
    private.add_flag(out)
    return out


@command(failed=Exit.USAGE, interrupted="the same command goes on where this one stopped")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand; returns its exit status."""
    args = parser().parse_args(argv)
    _check(args)
    quiet()
    with private.files(args.shared):
        return _audited(args)


def _check(args: argparse.Namespace) -> None:
    """Raises `ConfigError` for what is wrong with the words, before anything is read."""
    if args.films is not None and args.films < 2:
        raise ConfigError(f"--films={args.films}: at least 2, so that there is another patient's film")
    if args.seed < 0:
        raise ConfigError(f"--seed={args.seed}: a seed is 0 or more")
    if not 0 < args.margin < 1:
        raise ConfigError(f"--margin={args.margin:g}: between 0 and 1, in units of the figure")
    if args.card and not (args.model and (Path(args.model) / "README.md").is_file()):
        raise ConfigError("--card needs --model=EXPORT, a folder on this machine with a README.md")
    if args.command is not None:
        from medvill_jax.audit import asking

        asking.split(args.command)


def _audited(args: argparse.Namespace) -> int:
    from medvill_jax.audit import asking, folder, material
    from medvill_jax.audit.audit import Audit, Settings, erased_films, require
    from medvill_jax.audit.page import page

    require(args.task)
    settings = Settings(args.data, args.task, args.split, args.films, args.erased, args.seed, margin=args.margin)
    model = _model(args)
    function = None if args.callable is None else asking.function_of(args.callable)
    made_by, asked = _asked(args, model)
    given = material.read(args.data, args.split, args.task, limit=args.films, seed=args.seed)
    erased = erased_films(settings, given)
    made_with = {
        "task": args.task,
        "split": args.split,
        "films": args.films,
        "seed": args.seed,
        "erased": None if erased is None else erased.fingerprint,
        "records": given.fingerprint,
        **made_by,
    }
    with folder.opened(args.out, made_with) as salt:
        given = dataclasses.replace(given, salt=salt)
        audit = Audit(settings, given, erased, args.out)
        ask: asking.Ask | None = None
        if model is not None:
            ask = asking.of_model(model, args.task, args.out)
        elif function is not None:
            ask = asking.of_callable(function, args.task, args.out)
        for name, requests in audit.planned.items():
            if ask is not None:
                asking.answer(ask, args.out, name, requests, given)
            elif args.command is not None:
                asking.run(args.command, args.out, name, requests, args.task, _checker(audit, name))
        if left := audit.unanswered():
            _say_what_is_left(args.out, left, [*audit.planned])
            return Exit.DONE
        result = audit.result(asked)
        private.write(args.out / folder.RESULT, json.dumps(result, indent=2, allow_nan=False) + "\n")
        private.write(args.out / folder.PAGE, page(result))
    _tell(args.out, result)
    if args.card:
        from medvill_jax.audit.card import section
        from medvill_jax.hub.card import add_section

        add_section(Path(args.model) / "README.md", *section(result))
    return Exit.DONE


def _model(args: argparse.Namespace) -> Any:
    if args.model is None:
        return None
    from medvill_jax.app.model import load

    return load(args.model)


def _asked(args: argparse.Namespace, model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Who answers: all of it, and what the result tells, which others may read."""
    if args.command is not None:
        from medvill_jax.audit import asking

        # The words of a command may be paths, names and passwords.
        program = Path(asking.split(args.command)[0]).name
        digest = hashlib.sha256(args.command.encode()).hexdigest()
        return {"command": args.command}, {"command": {"program": program, "sha256": digest}}
    told: dict[str, Any] = {"predictions": "given"}
    if model is not None:
        options = model.options(args.task) if args.task != "ask" else {"task": "ask"}
        told = {"model": {"weights": model.weights, "options": options}}
    elif args.callable is not None:
        told = {"callable": args.callable}
    return told, told


def _checker(audit: Any, name: str) -> Callable[[Path], object]:
    return lambda path: audit.read(name, path)


def _say_what_is_left(out: Path, left: Sequence[str], names: Sequence[str]) -> None:
    from medvill_jax.audit.folder import PREDICTIONS, REQUESTS

    if len(left) == len(names):
        print(f"{out}: films and requests of {len(names)} conditions are written: {', '.join(names)}")
    print("to be answered:")
    for name in left:
        print(f"  {out / name / REQUESTS} in {PREDICTIONS} beside it")
    print("then give the same command again")


def _tell(out: Path, result: dict[str, Any]) -> None:
    """Prints the verdict, and what is missing."""
    from medvill_jax.audit.folder import PAGE

    for name, counts in result["conditions"].items():
        if counts["missing"]:
            print(f"missing: {counts['missing']:,} of {counts['requests']:,} answers of {name!r}")
    print(f"{result['verdict']}: {result['why']}")
    print(out / PAGE)

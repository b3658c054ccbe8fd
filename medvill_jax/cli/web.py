"""`medvill web`: a page in the browser that asks models about films."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medvill_jax.commands import Exit, Parser, command
from medvill_jax.errors import ConfigError, MissingExtra
from medvill_jax.films.quiet import quiet

if TYPE_CHECKING:
    from medvill_jax.app.model import Model

_HELP = """\
Opens a page that asks trained models about films: drop a PNG, JPEG or DICOM, read the report and the findings, point at
a word and see what in the film speaks for it, ask a question. It needs `pip install 'medvill_jax[web]'`.

  medvill web --demo
  medvill web --model=EXPORT
  medvill web --model=RUN/export --model=OTHER/export --port=8080
  medvill web --model=EXPORT --index=films.index

EXPORT is as for `medvill predict`. With several models, each task is answered by the first that can do it. --demo takes
the small model that the package brings; what it has learnt is drawn films, and of real ones it knows nothing.

The page answers this machine alone. --host=ADDRESS opens it to every machine that can reach that address (0.0.0.0: all
addresses of this one): whoever does can send films and ask, there is no password, and what is sent is not encrypted.
Then the Host header is no longer checked, which otherwise keeps other sites' pages out. Put it behind a proxy with TLS
and a login. Films stay in memory, for half an hour after the last question, and no log has their names or texts.

Ctrl-C or SIGTERM answers what has been asked, and ends. Research use only, not a medical device. Exit status: 0 ended
by SIGTERM, 2 something to correct, 130 ended by Ctrl-C.
"""
PORT = 7860


def parser() -> Parser:
    """The parser of the subcommand."""
    out = Parser("medvill web", _HELP)
    out.add_argument("--model", action="append", default=[], metavar="EXPORT", help="trained model; may be repeated")
    out.add_argument("--index", type=Path, metavar="FILE", help="made by `medvill index`, to show similar reports")
    out.add_argument("--demo", action="store_true", help="the model and the films that the package brings")
    out.add_argument("--port", type=int, default=PORT, metavar="PORT", help=f"default: {PORT}; 0 takes a free one")
    out.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="another address than this machine's own opens the page to others, without password or encryption",
    )
    return out


@command(failed=Exit.USAGE, interrupted="what had been asked was answered")
def main(argv: Sequence[str] | None = None) -> int:
    """Runs the subcommand; returns its exit status."""
    args = parser().parse_args(argv)
    if bool(args.model) == args.demo:
        raise ConfigError("name a trained model with --model=EXPORT, or try --demo, which takes no model")
    if not 0 <= args.port < 1 << 16:
        raise ConfigError(f"--port={args.port}: ports are numbers from 0 to 65535")
    try:
        from medvill_jax.app import similar
        from medvill_jax.web import demo, server
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), "web", "the page") from None
    quiet()
    held = server.bound(args.host, args.port)  # before a model is loaded, which takes longer
    with held:
        models = [_loaded(path) for path in ([str(demo.EXPORT)] if args.demo else args.model)]
        index = None if args.index is None else similar.read(args.index)
        examples = demo.examples() if args.demo else ()
        server.serve(held, models, host=args.host, index=index, examples=examples, ready=_tell)
    return Exit.DONE


def _loaded(path: str) -> Model:
    from medvill_jax.app.model import load
    from medvill_jax.web.service import check_tasks

    model = load(path)
    check_tasks(path, model.tasks)
    return model


def _tell(address: str) -> None:
    print(f"{address}   Research use only, not a medical device. Ctrl-C ends it.", flush=True)

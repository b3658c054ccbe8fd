"""The argument parser of the command lines in `metrics`: one line and status 1 for every mistake."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` whose help keeps its line breaks, which guesses no flag from its beginning."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """One line, and the status that every other mistake has."""
        print(f"error: {message}; --help tells more", file=sys.stderr)
        sys.exit(1)


class MissingExtra(ImportError):
    """A library of an optional extra is not installed; the message names the extra."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {library}: pip install 'medvill_jax[{extra}]'")

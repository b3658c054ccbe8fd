"""Command lines that a help shows, for tests to run."""

import re
import shlex
from collections.abc import Mapping, Sequence

# Programs by their subcommands of `medvill`.
DOORS = {
    "data_prep": "prep",
    "medvill_jax.run": "train",
    "medvill_jax.hub.convert": "convert",
    "medvill_jax.metrics.clinical": "labels",
}
# Indented, perhaps after what it is for or after a pipe; a remark stands after three spaces.
_LINE = re.compile(r"^ +(?:\S.*?(?:   |: |\| ) *)?(?P<command>(?:python (?:-m|run\.py)|medvill) .+?)(?:   .*)?$", re.M)


def examples(text: str) -> list[list[str]]:
    """The words after `medvill` of every command line in a help.

    What calls a program by `python` is put as its subcommand. A line with `...` in it is a form, no example; so is the
    name of a program alone.
    """
    found = []
    for match in _LINE.finditer(re.sub(r" *\\\n *", " ", text)):
        words = shlex.split(match["command"])
        if "..." in words:
            continue
        match words:
            case ["medvill", *rest]:
                found.append(rest)
            case ["python", "run.py", *rest]:
                found.append(["train", *rest])
            case ["python", "-m", name, first, *rest]:
                found.append([DOORS[name], first, *rest])
    return found


def with_places(words: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """The words, with values of flags that a help writes for the user's own replaced by those of a test."""
    split = (word.partition("=") for word in words)
    return [f"{name}{equals}{places.get(value, value)}" for name, equals, value in split]

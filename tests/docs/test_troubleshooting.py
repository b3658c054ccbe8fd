"""docs/troubleshooting.md quotes messages of the programs: each of them must be one that the source can say."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("medvill_jax", "data_prep", "configs")
BLOCK = re.compile(r"^```text\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUOTED = [
    line
    for block in BLOCK.findall((ROOT / "docs" / "troubleshooting.md").read_text("utf-8"))
    for line in block.splitlines()
]
# Of texts that are formatted later, as opposed to f-strings.
PLACEHOLDER = re.compile(r"%(?:\.\d+)?[sdfg]|\{\w+\}")
# How much of a message must be words of the source, so that a text that is nearly all placeholders proves nothing.
OWN_WORDS, OWN_SHARE = 3, 0.3

Pieces = tuple[str | None, ...]


@functools.cache
def said() -> frozenset[Pieces]:
    """Every text of the source in pieces; None is a placeholder."""
    trees = [ast.parse(path.read_text("utf-8")) for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    nodes = (node for tree in trees for node in ast.walk(tree))
    nodes = (node for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp))
    texts = (tuple(piece and piece.replace("\n", " ") for piece in pieces(node)) for node in nodes)
    return frozenset(text for text in texts if own_words(text) >= OWN_WORDS)


def pieces(node: ast.AST) -> Iterator[str | None]:
    """A constant, an f-string, or a sum of them; anything else is a placeholder."""
    match node:
        case ast.Constant(value=str(text)):
            first, *others = PLACEHOLDER.split(text.replace("%%", "%"))
            yield first
            for other in others:
                yield from (None, other)
        case ast.JoinedStr(values=parts):
            yield from (part.value if isinstance(part, ast.Constant) else None for part in parts)  # pyright: ignore
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            yield from (*pieces(left), *pieces(right))
        case _:
            yield None


def own_words(text: Pieces) -> int:
    return len(re.findall(r"\w+", " ".join(piece for piece in text if piece)))


def is_said(message: str) -> bool:
    """Whether a text of the source can become the message, which may leave out its start or its end ("...")."""
    quotation = message.removeprefix("... ").removesuffix("...").strip()
    for text in said():
        starts = range(len(text)) if message.startswith("...") else [0]
        ends = range(1, len(text) + 1) if message.endswith("...") else [len(text)]
        for part in (text[start:end] for start in starts for end in ends):
            own = "".join(piece for piece in part if piece)
            if own_words(part) < OWN_WORDS or len(own) < OWN_SHARE * len(quotation):
                continue
            pattern = "".join(".+" if piece is None else re.escape(piece) for piece in part)
            if any(re.fullmatch(pattern, given) for given in (quotation, f"{quotation} ", f" {quotation}")):
                return True
    return False


def test_there_are_messages() -> None:
    assert len(QUOTED) > 30


@pytest.mark.parametrize("message", QUOTED)
def test_every_message_is_one_of_the_source(message: str) -> None:
    assert is_said(message), "docs/troubleshooting.md quotes what no program says any more"


@pytest.mark.parametrize(
    "message",
    [
        "there is no dataset at DATA: make one with python -m data_prep",
        "no such configuration field",
        "batch_size=30 is no multiple of 8 devices",
        "this does not look like a frontal chest film",
        "no such field. ...",
        "DATA RUN EXPORT",
    ],
)
def test_what_no_program_says_is_found(message: str) -> None:
    assert not is_said(message)

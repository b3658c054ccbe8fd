"""Whatever names a place in the documentation names one that exists."""

import functools
import io
import re
import subprocess
import tokenize
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

CITATION = re.compile(r"\bdocs/[\w./-]*\.md\b(?:#[\w-]*)?")
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
# A specification that has no file and no anchor, so that no reader can open it.
NOWHERE = re.compile(r"\bSPEC\b")
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.MULTILINE | re.DOTALL)


def files() -> list[Path]:
    """Python and Markdown files of the repository, those that are about to be added among them."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py", "*.md"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no git checkout, so nothing says which files belong to the repository")
    return [path for name in listed.splitlines() if (path := ROOT / name).is_file()]


@functools.cache
def anchors(text: str) -> Counter[str]:
    """What a link into a Markdown file may name: ids, and headings in GitHub's spelling; how often each occurs."""
    text = CODE.sub(lambda code: "" if code[0].startswith("```") else code[0], text)
    found = Counter(re.findall(r'<a id="([^"]+)">', text))
    slugs: Counter[str] = Counter()
    for heading in re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        found[f"{slug}-{slugs[slug]}" if slugs[slug] else slug] += 1
        slugs[slug] += 1
    return found


def prose(path: Path, text: str) -> str:
    """What is written for readers: all of a Markdown file, comments and strings of a Python file."""
    if path.suffix == ".md":
        return text
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join(token.string for token in tokens if token.type in (tokenize.COMMENT, tokenize.STRING))


def problems(path: Path, text: str) -> list[str]:
    """Places that a file of the repository names and that do not exist, a line each."""
    targets = [(ROOT, citation) for citation in CITATION.findall(text)]
    if path.suffix == ".md":
        targets += [(path.parent, link) for link in LINK.findall(CODE.sub("", text)) if "://" not in link]
    # Few files have the word at all, and finding out where it stands takes long.
    named = NOWHERE.findall(prose(path, text)) if NOWHERE.search(text) else []
    found = [f"{path.relative_to(ROOT)}: {word}" for word in named]
    for folder, target in targets:
        name, _, anchor = target.partition("#")
        file = folder / name if name else path
        own = text if file == path else file.read_text("utf-8") if anchor and file.is_file() else ""
        if not (file == path or file.exists()) or ("#" in target and anchor not in anchors(own)):
            found.append(f"{path.relative_to(ROOT)}: {target}")
    return found


def test_every_place_that_is_named_exists() -> None:
    assert [problem for path in files() for problem in problems(path, path.read_text("utf-8"))] == []


def test_no_anchor_has_two_places() -> None:
    documents = [path for path in files() if path.suffix == ".md"]
    ids = {path: re.findall(r'<a id="([^"]+)">', path.read_text("utf-8")) for path in documents}
    assert {path.name: name for path, names in ids.items() for name, count in Counter(names).items() if count > 1} == {}


# Put together here, so that this file does not itself name what does not exist.
SPECIFICATION = "docs/" + "spec.md"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("code.py", f'"""Masks ({SPECIFICATION}#nowhere)."""\n'),
        ("code.py", f"x = 1  # see {SPECIFICATION}#\n"),
        ("code.py", "# see docs/" + "nothing.md\n"),
        ("code.py", f'"""Masks ({"SP" + "EC"} section 3)."""\n'),
        ("page.md", "[masks](spec.md#nowhere)\n"),
        ("page.md", "[masks](nothing.md)\n"),
        ("page.md", "# Here\n[there](#there)\n"),
    ],
)
def test_a_place_that_does_not_exist_is_found(name: str, text: str) -> None:
    assert len(problems(ROOT / "docs" / name, text)) == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("code.py", f'"""Masks ({SPECIFICATION}#masks)."""\nSPEC = 1\n'),
        ("page.md", "# Two, words\n[masks](spec.md#masks), [here](#two-words), [page](../README.md)\n"),
        ("page.md", "`[no](link)`\n```\n[nor](this)\n# no heading\n```\n[outside](https://example.org/a.md#b)\n"),
    ],
)
def test_a_place_that_exists_is_no_problem(name: str, text: str) -> None:
    assert problems(ROOT / "docs" / name, text) == []

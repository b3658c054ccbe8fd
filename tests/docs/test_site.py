"""The documentation is built as a site, without network, and its notebooks say what its pages promise.

Skipped without Sphinx (`pip install -e '.[docs]'`), unless MEDVILL_REQUIRE_DOCS is set.
"""

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUIRED = "MEDVILL_REQUIRE_DOCS"
# Nothing answers there, so whatever the build wants to fetch fails.
NOWHERE = "http://127.0.0.1:9"
NUMBER = r"(\d\.\d+)"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages; a warning of Sphinx or an error of a notebook fails."""
    if find_spec("myst_nb") is None:
        if os.environ.get(REQUIRED):
            pytest.fail("there is no Sphinx: pip install -e '.[docs]'")
        pytest.skip("there is no Sphinx: pip install -e '.[docs]'")
    out = tmp_path_factory.mktemp("site") / "html"
    # pytest's own warnings are errors; those of Sphinx's packages are theirs.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    environment |= {"http_proxy": NOWHERE, "https_proxy": NOWHERE, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "docs", str(out)]
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return out


def printed(site: Path, notebook: str) -> str:
    """What the cells of a notebook printed."""
    cells = json.loads((site.parent / "jupyter_execute" / f"{notebook}.ipynb").read_text("utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    return "".join("".join(output["text"]) for output in outputs if output.get("name") == "stdout")


def numbers(text: str, pattern: str) -> list[float]:
    found = re.search(pattern.replace("#", NUMBER), text)
    assert found, f"nothing like {pattern!r} in:\n{text}"
    return [float(number) for number in found.groups()]


def test_a_film_and_its_report(site: Path) -> None:
    text = printed(site, "notebooks/film_and_report")
    score, low, high = numbers(text, r"AUROC, macro # \[#, #\]")
    assert 0.6 < low < score < high < 1
    own, moved = numbers(text, r"clinical micro F1 #, moved on by a film #")
    assert own > moved + 0.1


def test_the_phantom_end_to_end(site: Path) -> None:
    text = printed(site, "notebooks/phantom")
    loss, unigram = numbers(text, r"MLM loss +# .* unigram #")
    assert loss < unigram - 0.5
    score, low, high, prevalence = numbers(text, r"examples of test.*\n +auroc_macro +# +\[#, #\] +prevalence #")
    assert prevalence == 0.5
    assert 0.55 < low < score < high
    assert score > 0.65
    # The film that is asked about has an answer.
    assert re.search(r"^finding +probability +threshold$", text, re.MULTILINE)


def test_the_masks_reach_what_the_page_says(site: Path) -> None:
    lines = printed(site, "model").splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["False", "False", "True", "False"]


def test_pages_fetch_nothing(site: Path) -> None:
    """Links may lead elsewhere, but no page loads anything from there."""
    pages = [*site.rglob("*.html")]
    assert len(pages) > 20
    fetched = re.compile(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]+)\"")
    assert {address for page in pages for address in fetched.findall(page.read_text("utf-8"))} == set()


def test_pages_hold_no_place_of_this_machine(site: Path) -> None:
    """An output or a docstring may not say where it was made."""
    pages = [*site.rglob("*.html")]
    assert [page.name for page in pages if str(ROOT) in page.read_text("utf-8")] == []

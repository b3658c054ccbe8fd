"""What a program can check of README.md, CONTRIBUTING.md, CHANGELOG.md and docs/: commands, names, sizes."""

import functools
import importlib
import re
import runpy
import shlex
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import setuptools
import yaml
from absl import flags
from ml_collections import ConfigDict

import medvill_jax.flags  # noqa: F401  of medvill_jax.run
from data_prep import flags as data_prep_flags
from medvill_jax.cli import audit, calibrate, index, launch, predict, summary, web
from medvill_jax.version import VERSION
from tests.console.examples import DOORS

ROOT = Path(__file__).parents[1]
SUBCOMMANDS = (predict, web, index, calibrate, summary, audit, launch)
PROGRAMS = {name: ["-m", module] for module, name in DOORS.items()} | {
    "train": ["run.py"],
    "plan": ["run.py", "--mode=plan"],
    **{module.__name__.rpartition(".")[2]: ["-m", module.__name__] for module in SUBCOMMANDS},
}
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")),
]
# Pages that make sense on the site alone: its start, and what it includes or generates.
OF_THE_SITE = {"docs/index.md", "docs/quick_start.md", "docs/api.md", "docs/contributing.md", "docs/changelog.md"}
FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def prose(page: str) -> str:
    """The page without its blocks of code."""
    return FENCE.sub("", text(page))


def commands(page: str) -> Iterator[list[str]]:
    """Every `python ...` of a page, in blocks and in prose, split as a shell splits it, without comments.

    A subcommand of `medvill` is put as the module behind it.
    """
    written = text(page).replace("\\\n", " ")
    blocks = [line for _, _, block in FENCE.findall(written) for line in block.splitlines()]
    for line in [*blocks, *re.findall(r"`((?:python|medvill \w+) [^`]+)`", FENCE.sub("", written))]:
        remote = re.search(r'--command="(.*)"', line)
        for part in (remote[1] if remote else line).split("&& "):
            if found := re.search(r"\b(?:python|medvill) .*", part):
                program, *words = shlex.split(found[0], comments=True)
                yield words if program == "python" else [*PROGRAMS[words[0]], *words[1:]]


def made(page: str) -> set[str]:
    """Files that blocks of the page are the content of; `tests/tasks/test_extend.py` makes and runs them."""
    return {*re.findall(r"^```python\n# ([\w/]+\.py)$", text(page), re.MULTILINE)}


@functools.cache
def config_of(value: str) -> ConfigDict:
    name, _, variant = value.partition(":")
    assert (ROOT / name).is_file(), f"{name} is not there"
    return importlib.import_module(name.removesuffix(".py").replace("/", ".")).get_config(variant)


def check_run(arguments: list[str]) -> None:
    """The configuration, its fields and run.py's own flags are there."""
    config: Any = None
    for name, _, value in (argument.partition("=") for argument in arguments if argument.startswith("--")):
        if name == "--config":
            config = config_of(value)
        elif name.startswith("--config."):
            assert has_field(config, name.removeprefix("--config.")), f"{config.task} has no {name}"
        else:
            assert name[2:] in flags.FLAGS, f"run.py has no {name}"


def has_field(config: Any, path: str) -> bool:
    for part in path.split("."):
        if not isinstance(config, ConfigDict) or part not in config:
            return False
        config = config[part]
    return True


def check_program(arguments: list[str]) -> None:
    """A module or file with options that stand in its source."""
    if arguments[0] == "-m":
        path, rest = ROOT / arguments[1].replace(".", "/"), arguments[2:]
        path = path if (path / "__main__.py").is_file() else path.with_suffix(".py")
    else:
        path, rest = ROOT / arguments[0], arguments[1:]
    assert path.exists(), f"{path.relative_to(ROOT)} is not there"
    source = "".join(file.read_text("utf-8") for file in ([path] if path.is_file() else path.glob("*.py")))
    for name in (argument.partition("=")[0] for argument in rest if argument.startswith("--")):
        assert f'"{name}"' in source, f"{path.relative_to(ROOT)} has no {name}"


def test_readme_is_short() -> None:
    lines = text("README.md").splitlines()
    assert len(lines) < 200
    assert max(map(len, lines)) <= 120


def test_two_commands_do_all_the_setting_up() -> None:
    lines = text("README.md").splitlines()
    assert "pip install -e . && python run.py --config=configs/pretrain.py:phantom" in lines
    assert "pip install -e '.[test]' && pytest" in lines
    assert "`pip install -e . -c constraints.txt`" in prose("README.md")


def test_files_are_as_short_as_contributing_says() -> None:
    rooms = ("medvill_jax", "data_prep", "configs", "benchmarks")
    files = [path for room in rooms for path in (ROOT / room).rglob("*.py")]
    assert "nine of ten fewer than 360 and none 500" in text("CONTRIBUTING.md")
    lengths = sorted(len(path.read_text("utf-8").splitlines()) for path in files)
    assert lengths[len(lengths) // 2] < 150
    assert lengths[len(lengths) * 9 // 10] < 360
    assert lengths[-1] < 500


def test_every_page_is_linked_from_readme() -> None:
    linked = re.findall(r"\]\(([^)\s#]+)", prose("README.md"))
    assert not {page for page in PAGES if page != "README.md"} - OF_THE_SITE - {*linked}


@pytest.mark.parametrize("page", PAGES)
def test_commands_can_be_typed(page: str) -> None:
    for arguments in commands(page):
        if any(name in argument for name in made(page) for argument in arguments):
            continue
        if arguments[0] == "run.py":
            check_run(arguments[1:])
        elif arguments[:2] == ["-m", "data_prep"]:
            if any(argument.startswith("--out=") for argument in arguments):
                data_prep_flags.parser().parse_args(arguments[2:])
        elif arguments[1:2] == [predict.__name__]:
            predict.parser().parse_args(arguments[2:])
        elif arguments[1:2] == [launch.__name__]:
            engine, *words = arguments[2:]
            if words:
                check_run(launch.parser(engine).parse_known_args(words)[1])
        else:
            check_program(arguments)


@pytest.mark.parametrize("page", PAGES)
def test_flags_beside_commands_are_fields_of_a_configuration(page: str) -> None:
    """Blocks and tables that list flags alone."""
    names = [path.name for path in ROOT.glob("configs/*.py") if path.name not in ("__init__.py", "base.py")]
    every = [config_of(f"configs/{name}{variant}") for name in names for variant in ("", ":phantom")]
    for path in re.findall(r"--config\.([\w.]*\w)", text(page)):
        assert any(has_field(config, path) for config in every), f"{page}: no configuration has {path}"


@pytest.mark.parametrize("page", PAGES)
def test_files_and_extras_that_are_named_are_there(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in re.findall(r"`((?:medvill_jax|data_prep|configs|benchmarks|tests)/[\w/.]*\w)`", text(page)):
        assert (ROOT / name).exists() or name in made(page), f"{page}: {name}"
    monkeypatch.setattr(setuptools, "setup", lambda **_: None)
    extras = runpy.run_path(str(ROOT / "setup.py"))["EXTRAS"]
    assert {*re.findall(r"pip install [^`\n]*?\[(\w+)\]", text(page))} <= {*extras}


def test_numbers_of_results_have_a_command_and_a_commit() -> None:
    """In every section of docs/results.md that has measured something; the command may stand above its parts."""
    for section in re.split(r"^## ", text("docs/results.md"), flags=re.MULTILINE)[1:]:
        title = section.partition("\n")[0]
        outside, *parts = re.split(r"^### ", section, flags=re.MULTILINE)
        for part in parts or [outside]:
            if re.search(r"\d\.\d|\d (s|MB|GiB)\b", part):
                where = f"{title}: {part.partition(chr(10))[0]}"
                assert re.search(r"`[0-9a-f]{7}`", part), f"{where} names no commit"
                assert re.search(r"\b(python|pytest|pip) ", part + outside) or "](data.md#" in part, f"{where}: command"


def test_the_picture_reads_in_light_and_dark() -> None:
    picture = ROOT / "docs" / "model.svg"
    root = ElementTree.parse(picture).getroot()
    space = {"svg": "http://www.w3.org/2000/svg"}
    assert root.find("svg:title", space) is not None
    styles = "".join(style.text or "" for style in root.iterfind("svg:style", space))
    light, dark = styles.split("@media (prefers-color-scheme: dark)")
    recoloured = {*re.findall(r"\.([\w-]+) \{", dark)}
    assert recoloured <= {*re.findall(r"\.([\w-]+) \{", light)}
    assert {"ink", "quiet", "line", "head"} <= recoloured
    used = {name for node in root.iter() for name in node.get("class", "").split()}
    assert used <= {*re.findall(r"\.([\w-]+) \{", light)}


@pytest.mark.parametrize(("subject", "status"), [("x" * 72, 0), ("x" * 73, 1), ("", 1)])
def test_the_hook_holds_commit_subjects(subject: str, status: int, tmp_path: Path) -> None:
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))
    [hook] = [hook for hook in hooks["repos"][0]["hooks"] if hook.get("stages") == ["commit-msg"]]
    assert "commit-msg" in hooks["default_install_hook_types"]
    message = tmp_path / "message"
    message.write_text(f"{subject}\n\nWhy, in as many words as it takes, in lines as long as they are.\n")
    ended = subprocess.run([*shlex.split(hook["entry"]), message], capture_output=True, text=True, check=False)
    assert ended.returncode == status
    assert (status == 0) == (ended.stderr == "")


def test_the_citation_is_readmes() -> None:
    cited = yaml.safe_load(text("CITATION.cff"))
    assert cited["version"] == VERSION
    [paper] = cited["references"]
    entry = dict(re.findall(r"^  (\w+) += \{(.+)\},?$", text("README.md"), re.MULTILINE))
    assert entry["author"] == " and ".join(f"{a['family-names']}, {a['given-names']}" for a in paper["authors"])
    assert entry["pages"] == f"{paper['start']}--{paper['end']}"
    for name in ("title", "journal", "volume", "number", "year", "doi"):
        assert entry[name] == str(paper["issue" if name == "number" else name])

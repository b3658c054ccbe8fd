"""Who may import whom. The table is CONTRIBUTING.md's; any other arrow between rooms fails here."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("medvill_jax", "data_prep", "configs")
LONGEST_CLASS = 200
# Files that are copied next to a model's weights; they can name each other only relatively.
COPIED = "medvill_jax.hub.transformers_files"
# What every room but configs may import.
GROUND = {"medvill_jax.errors", "medvill_jax.commands", "medvill_jax.version"}
# What tasks may import of their room, beside their own package.
SHARED_BY_TASKS = (
    "data", "evaluation", "grounded", "length", "length_buckets", "made_with", "mixed", "network", "pair_scores",
    "parts", "planned", "runner", "setup", "splits", "subgroups",
)  # fmt: skip

# What is made of other tasks, and may import them.
COMPOSED = {"medvill_jax.tasks.multitask": ("classify", "generate", "retrieve", "vqa")}

# room -> the rooms and outside packages it may import; "*" means any outside package.
RULES: dict[str, tuple[set[str], set[str] | None]] = {
    "configs": ({"configs"}, {"ml_collections"}),
    "medvill_jax.errors": (set(), set()),
    "medvill_jax.commands": (set(), set()),
    "medvill_jax.version": (set(), set()),
    "medvill_jax.batch": (set(), {"numpy", "jax"}),
    "medvill_jax.paths": (set(), {"etils"}),
    "medvill_jax.private": (set(), set()),
    "medvill_jax.findings": (set(), set()),
    "medvill_jax.beam_runner": (set(), {"apache_beam"}),
    "medvill_jax.trees": (set(), {"jax"}),
    "medvill_jax.programs": (set(), {"jax"}),
    "medvill_jax.compiled": ({"medvill_jax.private"}, {"jax"}),
    "medvill_jax.films": ({"medvill_jax.films"}, {"numpy", "cv2", "PIL", "pydicom"}),
    "medvill_jax.data": (
        {"medvill_jax.batch", "medvill_jax.paths", "medvill_jax.findings", "medvill_jax.data"},
        {"numpy", "grain", "tokenizers", "transformers", "tensorflow_datasets", "cv2", "jax", "etils"},
    ),
    "medvill_jax.models": (
        {"medvill_jax.batch", "medvill_jax.programs", "medvill_jax.trees", "medvill_jax.models"},
        {"jax", "flax", "numpy"},
    ),
    "medvill_jax.decoding": ({"medvill_jax.batch", "medvill_jax.decoding"}, {"jax", "numpy"}),
    "medvill_jax.training": (
        {
            "medvill_jax.batch",
            "medvill_jax.paths",
            "medvill_jax.private",
            "medvill_jax.programs",
            "medvill_jax.trees",
            "medvill_jax.training",
        },
        None,
    ),
    "medvill_jax.cluster": ({"medvill_jax.paths", "medvill_jax.private", "medvill_jax.cluster"}, None),
    "medvill_jax.compile": (
        {
            "medvill_jax.batch",
            "medvill_jax.private",
            "medvill_jax.trees",
            "medvill_jax.training",
            "medvill_jax.compile",
            "medvill_jax.pages",
        },
        None,
    ),
    "medvill_jax.metrics": ({"medvill_jax.private", "medvill_jax.findings", "medvill_jax.metrics"}, None),
    "medvill_jax.tasks": (
        {
            "medvill_jax.batch",
            "medvill_jax.private",
            "medvill_jax.trees",
            "medvill_jax.findings",
            "medvill_jax.data",
            "medvill_jax.models",
            "medvill_jax.decoding",
            "medvill_jax.training",
            "medvill_jax.cluster",
            "medvill_jax.compile",
            "medvill_jax.metrics",
            *(f"medvill_jax.tasks.{name}" for name in SHARED_BY_TASKS),
            "medvill_jax.hub",
        },
        None,
    ),
    "medvill_jax.hub": (
        {
            "medvill_jax.paths",
            "medvill_jax.private",
            "medvill_jax.programs",
            "medvill_jax.trees",
            "medvill_jax.models",
            "medvill_jax.decoding",
            "medvill_jax.data.tokenizer",
            "medvill_jax.data.records",
            "medvill_jax.hub",
        },
        None,
    ),
    COPIED: ({COPIED}, {"numpy", "torch", "transformers", "tokenizers", "cv2", "PIL"}),
    "medvill_jax.app": (
        {
            "medvill_jax.compiled",
            "medvill_jax.paths",
            "medvill_jax.private",
            "medvill_jax.films",
            "medvill_jax.data",
            "medvill_jax.models",
            "medvill_jax.metrics",
            "medvill_jax.hub",
            "medvill_jax.app",
        },
        None,
    ),
    "medvill_jax.spread": (
        {
            "medvill_jax.beam_runner",
            "medvill_jax.paths",
            "medvill_jax.private",
            "medvill_jax.films.quiet",
            "medvill_jax.app",
            "medvill_jax.hub.report_writer",
            "medvill_jax.spread",
        },
        {"apache_beam"},
    ),
    "medvill_jax.web": (
        {"medvill_jax.films", "medvill_jax.data.transforms", "medvill_jax.app", "medvill_jax.web"},
        {"starlette", "uvicorn", "prometheus_client", "numpy", "cv2"},
    ),
    "medvill_jax.serving": (
        {"medvill_jax.app", "medvill_jax.web", "medvill_jax.serving"},
        {"starlette", "ray", "pydantic", "click"},
    ),
    "medvill_jax.pages": ({"medvill_jax.pages"}, {"numpy", "matplotlib"}),
    "medvill_jax.summary": (
        {
            "medvill_jax.pages",
            "medvill_jax.findings",
            "medvill_jax.cluster.environment",
            "medvill_jax.cluster.workdir",
            "medvill_jax.data",
            "medvill_jax.metrics",
            "medvill_jax.training.history",
            "medvill_jax.summary",
        },
        {"numpy", "matplotlib", "PIL"},
    ),
    "medvill_jax.audit": (
        {
            "medvill_jax.paths",
            "medvill_jax.private",
            "medvill_jax.findings",
            "medvill_jax.films",
            "medvill_jax.data",
            "medvill_jax.metrics",
            "medvill_jax.app.model",
            "medvill_jax.pages",
            "medvill_jax.audit",
        },
        {"numpy", "cv2", "rapidfuzz", "tqdm"},
    ),
    "medvill_jax.flags": ({"medvill_jax.private"}, {"absl", "ml_collections"}),
    "medvill_jax.run": (
        {
            "medvill_jax.flags",
            "medvill_jax.compiled",
            "medvill_jax.private",
            "medvill_jax.cluster",
            "medvill_jax.compile",
            "medvill_jax.tasks",
            "data_prep.phantom",
        },
        {"absl"},
    ),
    "medvill_jax.launch": ({"medvill_jax.paths", "medvill_jax.compile.topology", "medvill_jax.launch"}, {"yaml"}),
    "medvill_jax.cli": (
        {
            "medvill_jax.private",
            "medvill_jax.flags",
            "medvill_jax.launch",
            "medvill_jax.beam_runner",
            "medvill_jax.films.quiet",
            "medvill_jax.films.signature",
            "medvill_jax.app",
            "medvill_jax.spread",
            "medvill_jax.web",
            "medvill_jax.cli",
            "medvill_jax.audit",
            "medvill_jax.data.mixture",
            "medvill_jax.hub.card",
            "medvill_jax.hub.convert",
            "medvill_jax.metrics.clinical",
            "medvill_jax.run",
            "medvill_jax.summary",
            "data_prep.__main__",
        },
        {"tqdm"},
    ),
    "medvill_jax.__main__": ({"medvill_jax.cli"}, set()),
    "data_prep": (
        {
            "data_prep",
            "medvill_jax.beam_runner",
            "medvill_jax.private",
            "medvill_jax.findings",
            "medvill_jax.films",
            "medvill_jax.data",
            "medvill_jax.metrics",
        },
        None,
    ),
}
FORBIDDEN_OUTSIDE = {
    "medvill_jax.models": {"optax", "orbax", "grain", "ml_collections"},
    "medvill_jax.training": {"flax", "grain", "ml_collections", "tensorflow_datasets"},
    "medvill_jax.cluster": {"flax", "grain", "ml_collections", "tensorflow_datasets"},
    "medvill_jax.compile": {"flax", "grain", "ml_collections", "tensorflow_datasets"},
    "medvill_jax.metrics": {"jax", "flax"},
    "data_prep": {"jax", "flax", "optax", "orbax"},
}


def room_of(module: str) -> str | None:
    """The longest room that a dotted module lies in."""
    rooms = [room for room in RULES if module == room or module.startswith(room + ".")]
    return max(rooms, key=len, default=None)


def files() -> list[Path]:
    return sorted(path for top in OURS for path in (ROOT / top).rglob("*.py"))


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            if node.level == 1 and path.parent == ROOT.joinpath(*COPIED.split(".")):
                found.add(f"{COPIED}.{node.module}")
                continue
            assert node.level == 0, f"{path}: relative imports hide the room they come from"
            for alias in node.names:
                target = f"{node.module}.{alias.name}"
                as_module = ROOT / Path(*target.split("."))
                is_module = as_module.with_suffix(".py").is_file() or as_module.is_dir()
                found.add(target if is_module else str(node.module))
    return found


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_rooms(path: Path) -> None:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    room = room_of(module)
    if room is None:
        assert module == "medvill_jax", f"{module} lies in no room of CONTRIBUTING.md"
        return
    allowed, outside = RULES[room]
    if room not in ("configs", "medvill_jax.errors", COPIED):
        allowed = allowed | GROUND
    if room == "medvill_jax.tasks":
        task = ".".join(module.split(".")[:3])
        allowed = {*allowed, task, *(f"{room}.{name}" for name in COMPOSED.get(task, ()))}
    for name in imports(path):
        top = name.partition(".")[0]
        if top in OURS:
            assert any(name == ok or name.startswith(ok + ".") for ok in allowed), f"{module} may not import {name}"
        else:
            assert top not in FORBIDDEN_OUTSIDE.get(room, set()), f"{module} may not import {top}"
            if outside is not None and not _standard(top):
                assert top in outside, f"{module} may not import {top}"


def test_no_module_imports_itself_through_others() -> None:
    graph: dict[str, set[str]] = {}
    for path in files():
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[module] = {name for name in imports(path) if name.partition(".")[0] in OURS} - {module}
    while leaves := {module for module, names in graph.items() if not names & graph.keys()}:
        graph = {module: names for module, names in graph.items() if module not in leaves}
    assert not graph, f"circles among: {', '.join(sorted(graph))}"


def _standard(top: str) -> bool:
    import sys

    return top in sys.stdlib_module_names


def test_every_room_exists_in_the_rules() -> None:
    rooms = {
        ".".join(p.relative_to(ROOT).parts) for p in (ROOT / "medvill_jax").iterdir() if (p / "__init__.py").exists()
    }
    assert rooms <= set(RULES), f"rooms without a rule: {rooms - set(RULES)}"


def test_no_class_grows_long() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {node.name} has {lines} lines"
        for path in files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_CLASS
    ]
    assert not long, f"split these by idea: {long}"


def test_sources_do_not_know_each_other() -> None:
    folder = ROOT / "data_prep" / "sources"
    modules = {f"data_prep.sources.{name}" for name in json.loads((folder / "fields.json").read_text("utf-8"))}
    for path in folder.glob("*.py"):
        known = imports(path) & modules
        assert not known, f"{path.name} may not import {', '.join(known)}"

"""Files appear whole or not at all, and the old one stays where a new one could not be written."""

import ast
import os
from pathlib import Path

import pytest

from medvill_jax import private

ROOT = Path(__file__).parents[1]
# What gives whole folders their names.
FOLDERS = {
    "medvill_jax/hub/export.py",
    "medvill_jax/training/saved_step.py",
    "data_prep/build.py",
    "data_prep/phantom/tree.py",
    "data_prep/phantom/vqa.py",
    "data_prep/sources/phantom_tree.py",
}


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def _write_half(path: Path) -> None:
    path.write_text("half")
    raise ZeroDivisionError


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    private.write(path, "older")
    with private.replaced(path) as part:
        part.write_text("newer")
        assert path.read_text() == "older"
    assert path.read_text() == "newer"
    private.write(path, b"newest")
    assert path.read_bytes() == b"newest"
    assert names(tmp_path) == ["metrics.json"]


def test_the_old_file_stays_where_the_new_one_fails(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    private.write(path, "older")
    with pytest.raises(ZeroDivisionError), private.replaced(path) as part:
        _write_half(part)
    assert path.read_text() == "older"
    assert names(tmp_path) == ["metrics.json"]


def test_links_and_pipes_are_written_in_place(tmp_path: Path) -> None:
    file, link, pipe = tmp_path / "file", tmp_path / "link", tmp_path / "pipe"
    file.write_text("older")
    link.symlink_to(file)
    private.write(link, "newer")
    assert link.is_symlink()
    assert file.read_text() == "newer"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    private.write(pipe, "through")
    assert os.read(reader, 100) == b"through"
    os.close(reader)
    assert pipe.is_fifo()


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"no/metrics\.json'$"):
        private.write(tmp_path / "no" / "metrics.json", "")


def test_a_file_is_its_users_alone_unless_shared(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        private.write(tmp_path / "alone", "")
        with private.replaced(tmp_path / "worker", by_umask=True):
            pass
        with private.files(shared=True):
            private.write(tmp_path / "shared", "")
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"alone": 0o600, "worker": 0o644, "shared": 0o644}


def test_nobody_else_gives_a_file_its_name() -> None:
    def renames(path: Path) -> bool:
        calls = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        return any(
            isinstance(call.func, ast.Attribute)
            and call.func.attr in ("replace", "rename")
            and not call.keywords
            # text.replace takes two arguments, os.replace too
            and len(call.args) == (2 if ast.unparse(call.func.value) == "os" else 1)
            for call in calls
        )

    found = {
        str(path.relative_to(ROOT))
        for top in ("medvill_jax", "data_prep")
        for path in (ROOT / top).rglob("*.py")
        if renames(path)
    }
    assert found == FOLDERS | {"medvill_jax/private.py"}

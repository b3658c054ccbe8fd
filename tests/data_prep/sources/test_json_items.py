"""Items of JSON files: any file in any pieces is what `json` makes of it, and a damaged one is an error."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.sources import json_items
from medvill_jax.data.records import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.lists(VALUES, max_size=6) | st.dictionaries(st.text(), VALUES, max_size=6),
    indent=st.none() | st.integers(0, 2),
    step=st.integers(1, 40),
    mark=st.booleans(),
)
def test_items_are_those_of_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: list | dict, indent: int | None, step: int, mark: bool
) -> None:
    monkeypatch.setattr(json_items, "_STEP", step)
    path = tmp_path / "items.json"
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False), "utf-8-sig" if mark else "utf-8")
    expected = content.items() if isinstance(content, dict) else ((str(i), v) for i, v in enumerate(content, 1))
    assert list(json_items.items(path)) == list(expected)


@pytest.mark.parametrize(
    "text", ["", "7", '"a"', "[1,", "[1 2]", "[1,]", "[,1]", '{"a" 1}', '{"a":}', '{"a":1', "[1}", "{1:2}"]
)
def test_damaged_files_are_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "items.json"
    path.write_text(text)
    with pytest.raises(DataError, match="download it again"):
        list(json_items.items(path))


def test_bytes_that_are_no_text_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "items.json"
    path.write_bytes(b'["\xff\xfe"]')
    with pytest.raises(DataError, match="damaged"):
        list(json_items.items(path))


def test_an_item_without_end_is_not_read_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_items, "_LARGEST_ITEM", 1000)
    monkeypatch.setattr(json_items, "_STEP", 100)
    path = tmp_path / "items.json"
    path.write_text('["' + "a" * 5000 + '"]')
    with pytest.raises(DataError, match="damaged"):
        list(json_items.items(path))

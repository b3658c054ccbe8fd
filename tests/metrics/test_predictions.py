"""The prediction file: written row by row, resumed, damaged."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medvill_jax.metrics.clinical import label_batch
from medvill_jax.metrics.predictions import Prediction, PredictionError, Writer, read

LABELS = tuple(label_batch(["Small left pleural effusion. No edema. Possible pneumonia."])[0].tolist())
A = Prediction("a", "Größe: 1 cm.\nNo edema.", "größe", -1.5, LABELS, None, 7)
B = Prediction("b", "心臓", "")
GOOD = '{"id": "a", "reference": "x", "hypothesis": "y"}'


def test_rows_come_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "predictions.jsonl"
    with Writer(path) as out:
        assert out.done == set()
        out.write(A)
        assert read(path) == [A]  # there before the file is closed
        out.write(B)
    assert read(path) == [A, B]
    first = json.loads(path.read_text().splitlines()[0])
    assert first["reference_labels"] == {"Edema": 0, "Pleural Effusion": 1, "Pneumonia": -1}
    assert first["hypothesis_labels"] is None


@given(reference=st.text(), hypothesis=st.text(), log_prob=st.none() | st.floats(-1e9, 0))
@settings(max_examples=50, deadline=None)
def test_any_text_comes_back(tmp_path_factory, reference: str, hypothesis: str, log_prob: float | None) -> None:
    path = tmp_path_factory.mktemp("any") / "p.jsonl"
    row = Prediction("1", reference, hypothesis, log_prob)
    with Writer(path) as out:
        out.write(row)
    assert read(path) == [row]


@pytest.mark.parametrize("cut", [1, 2, 20])
def test_a_line_cut_short_is_dropped_and_written_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "p.jsonl"
    with Writer(path) as out:
        out.write(B)
        out.write(A)
    path.write_bytes(path.read_bytes()[:-cut])
    assert read(path) == ([B, A] if cut == 1 else [B])  # without its line break a row is whole
    with Writer(path) as out:
        assert out.done == ({"a", "b"} if cut == 1 else {"b"})
        if "a" not in out.done:
            out.write(A)
        out.write(Prediction("c", "x", "y"))
    assert [each.id for each in read(path)] == ["b", "a", "c"]
    assert read(path)[1] == A


def test_a_file_of_one_torn_line_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": "a", "refe')
    with pytest.raises(PredictionError, match="holds no prediction"):
        read(path)
    with Writer(path) as out:
        out.write(A)
    assert read(path) == [A]


def test_what_others_write_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(
        '\ufeff{"id": 7, "reference": "x", "hypothesis": "y", "note": 1, "log_prob": -2}\r\n\n'
        '{"id": "8", "reference": "x", "hypothesis": "y", "hypothesis_labels": {"Edema": null, "Fracture": 1}}'
    )
    first, second = read(path)
    assert (first.id, first.log_prob, first.reference_labels) == ("7", -2.0, None)
    assert second.hypothesis_labels is not None
    assert sorted(set(second.hypothesis_labels)) == [-2, 1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected an object"),
        ('{"id": "z"}', "no reference and no hypothesis"),
        ('{"id": true, "reference": "x", "hypothesis": "y"}', "id must be"),
        ('{"id": 1.5, "reference": "x", "hypothesis": "y"}', "id must be"),
        ('{"id": "z", "reference": null, "hypothesis": "y"}', "reference must be a string"),
        ('{"id": "z", "reference": "x", "hypothesis": 3}', "hypothesis must be a string"),
        ('{"id": "z", "reference": "x", "hypothesis": "y", "log_prob": NaN}', "log_prob must be"),
        ('{"id": "z", "reference": "x", "hypothesis": "y", "log_prob": "-1"}', "log_prob must be"),
        ('{"id": "z", "reference": "x", "hypothesis": "y", "reference_labels": [1]}', "reference_labels must be"),
        ('{"id": "z", "reference": "x", "hypothesis": "y", "reference_labels": {"Oedema": 1}}', "names 'Oedema'"),
        ('{"id": "z", "reference": "x", "hypothesis": "y", "reference_labels": {"Edema": 2}}', "Edema is 2"),
        ('{"id": "z", "reference": "x", "hypothesis": "y", "reference_labels": {"Edema": true}}', "Edema is True"),
        (GOOD, "the id 'a' was on line 1 already"),
        ("[" * 100_000, "cannot be read"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD.replace('a', 'b', 1)}\n")
    for use in (read, Writer):
        with pytest.raises(PredictionError, match=f"p.jsonl, line 3: .*{message}"):
            use(path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b"\xff\n" + GOOD.encode() + b"\n")
    with pytest.raises(PredictionError, match="line 1: not UTF-8 text"):
        read(path)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(PredictionError, match="No such file"):
        read(tmp_path / "no.jsonl")
    with pytest.raises(PredictionError, match="Is a directory"):
        read(tmp_path)
    with pytest.raises(PredictionError, match="Is a directory"):
        Writer(tmp_path)
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(PredictionError, match="holds no prediction"):
        read(tmp_path / "empty")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with Writer(tmp_path / "p.jsonl") as out:
        out.write(A)
        with pytest.raises(PredictionError, match="'a' is there already"):
            out.write(A)
        with pytest.raises(ValueError, match="log_prob is nan"):
            out.write(Prediction("n", "x", "y", float("nan")))
        with pytest.raises(ValueError, match="expected 14 of"):
            out.write(Prediction("n", "x", "y", None, (1, 0)))
        with pytest.raises(ValueError, match="expected 14 of"):
            out.write(Prediction("n", "x", "y", None, (3,) * 14))
    assert read(tmp_path / "p.jsonl") == [A]

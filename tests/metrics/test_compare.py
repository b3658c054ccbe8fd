"""Two runs side by side: the table, the command, and files that do not fit."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medvill_jax.metrics import compare as program
from medvill_jax.metrics import report_scores, text
from medvill_jax.metrics.compare import CompareError, compare, main, table
from medvill_jax.metrics.predictions import Prediction, Writer

ROOT = Path(__file__).parents[2]
PHRASES = [
    "No pneumothorax is seen.",
    "There is a small left pleural effusion.",
    "The heart is mildly enlarged.",
    "Bibasilar atelectasis is unchanged.",
    "Mild pulmonary edema has developed.",
]


def run(mistakes: float, seed: int, count: int = 60) -> list[Prediction]:
    """Predictions whose reports are another example's with the probability `mistakes`."""
    truth, wrong = np.random.default_rng(0), np.random.default_rng(seed)
    references = [" ".join(truth.choice(PHRASES, 2, replace=False)) for _ in range(count)]
    picked = [k if wrong.random() > mistakes else int(wrong.integers(count)) for k in range(count)]
    judged = [" ".join(text.tokens(references[k])) for k in picked]
    return [Prediction(f"s{k}", r, h) for k, (r, h) in enumerate(zip(references, judged, strict=True))]


GOOD, BAD, ALSO_BAD = run(0.1, 1), run(0.7, 2), run(0.7, 3)


def save(path: Path, rows: list[Prediction]) -> str:
    path.unlink(missing_ok=True)
    with Writer(path) as out:
        for row in rows:
            out.write(row)
    return str(path)


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return save(tmp_path / "a.jsonl", BAD), save(tmp_path / "b.jsonl", GOOD[::-1])


def test_a_better_run_is_better_and_a_like_one_is_not() -> None:
    for row in compare(BAD, GOOD, meteor=False):
        assert row.difference == row.b - row.a
        if row.name in ("bleu4", "bleu4_upstream", "rouge_l", "cider", "clinical_micro_f1_14", "clinical_macro_f1_14"):
            assert 0 < row.low < row.difference < row.high
            assert row.p < 0.01
    close = {row.name: row for row in compare(BAD, ALSO_BAD, meteor=False)}
    assert close["bleu4"].low < 0 < close["bleu4"].high
    assert close["bleu4"].p > 0.05


def test_metrics_are_those_of_the_scores() -> None:
    metrics = [report_scores.score(each, meteor=False, resamples=0) for each in (BAD, GOOD)]
    for row in compare(BAD, GOOD[::-1], meteor=False, resamples=5):
        assert row.a == pytest.approx(metrics[0][row.name])
        assert row.b == pytest.approx(metrics[1][row.name])


def test_a_run_against_itself() -> None:
    for row in compare(GOOD, GOOD, meteor=False, resamples=50):
        assert (row.difference, row.low, row.high, row.p, row.p_holm) == (0, 0, 0, 1, 1)


def test_one_example_is_compared() -> None:
    rows = {row.name: row for row in compare(BAD[:1], GOOD[:1], meteor=False, resamples=20)}
    assert math.isnan(rows["cider"].p)
    assert rows["rouge_l"].p == 1  # swapping one example always gives as large a difference
    assert " - " in table(list(rows.values()))


def test_runs_that_do_not_belong_together() -> None:
    with pytest.raises(CompareError, match=r"58 ids in both, 2 only in A \(such as 's0'\)$"):
        compare(BAD, GOOD[2:])
    other = [replace(GOOD[0], id="new"), *GOOD[1:]]
    with pytest.raises(CompareError, match=r"59 ids in both, 1 only in A \(such as 's0'\), 1 only in B"):
        compare(BAD, other)
    with pytest.raises(CompareError, match=r"1 of 60 ids have another reference in B \(such as 's0'\)"):
        compare(BAD, [replace(GOOD[0], reference="Lungs are clear."), *GOOD[1:]])
    labels = (1,) * 14
    with pytest.raises(CompareError, match="another reference_labels"):
        compare(BAD, [replace(GOOD[0], reference_labels=labels), *GOOD[1:]])
    with pytest.raises(CompareError, match="only C carries hypothesis_labels"):
        compare(BAD, GOOD, [replace(each, hypothesis_labels=labels) for each in GOOD])


def with_subjects(rows: list[Prediction], of: list[int]) -> list[Prediction]:
    return [replace(row, subject=subject) for row, subject in zip(rows, of, strict=True)]


def test_several_runs_are_corrected_for_their_number() -> None:
    pairs = [{row.name: row for row in compare(BAD, other, meteor=False)} for other in (GOOD, ALSO_BAD, BAD)]
    rows = compare(BAD, GOOD, ALSO_BAD, BAD, meteor=False)
    assert [row.run for row in rows] == sorted(row.run for row in rows)
    for name in pairs[0]:
        found = [row for row in rows if row.name == name]
        expected = [pair[name].p for pair in pairs]
        assert [row.p for row in found] == expected
        smallest, middle, _ = sorted(expected)
        assert min(row.p_holm for row in found) == pytest.approx(min(1, 3 * smallest))
        corrected = {row.p: row.p_holm for row in found}
        assert corrected[middle] == pytest.approx(min(1, max(3 * smallest, 2 * middle)))
    blocks = table(rows).split("\n\n")
    assert [block.splitlines()[0].split() for block in blocks] == [
        ["A", letter, letter, "-", "A", "95", "%", "of", "it", "p", "p,", "Holm"] for letter in "BCD"
    ]
    assert "Holm" not in table(compare(BAD, GOOD, meteor=False, resamples=5))


def test_examples_of_a_subject_are_resampled_and_swapped_together() -> None:
    subjects = [k // 6 for k in range(60)]
    plain = {row.name: row for row in compare(BAD, GOOD, meteor=False)}
    together = {
        row.name: row for row in compare(with_subjects(BAD, subjects), with_subjects(GOOD, subjects), meteor=False)
    }
    assert together["rouge_l"].difference == plain["rouge_l"].difference
    assert together["rouge_l"].low != plain["rouge_l"].low
    # Twenty examples of one subject are one observation, which may as well be swapped as not.
    alone = compare(with_subjects(BAD, [0] * 60), GOOD, meteor=False, resamples=20)
    assert {row.p for row in alone} == {1}
    # Only how examples belong together counts; a file without subjects takes the other's.
    renamed = with_subjects(GOOD[::-1], [100 - k for k in subjects[::-1]])
    assert compare(with_subjects(BAD, subjects), renamed, meteor=False) == list(together.values())
    assert compare(BAD, with_subjects(GOOD, subjects), meteor=False) == list(together.values())
    with pytest.raises(CompareError, match="say differently which examples are of one subject"):
        compare(with_subjects(BAD, subjects), with_subjects(GOOD, [*subjects[1:], 0]), meteor=False)


def test_meteor_has_no_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program.text, "meteor_missing", lambda: None)
    monkeypatch.setattr(program.text, "meteor", lambda references, hypotheses: float(hypotheses[0] == "b"))
    rows = compare([Prediction("1", "x", "a")], [Prediction("1", "x", "b")], resamples=5)
    assert rows[-1].name == "meteor"
    assert (rows[-1].a, rows[-1].b, rows[-1].difference) == (0, 1, 1)
    assert math.isnan(rows[-1].p)
    assert table(rows).splitlines()[-1].split() == ["meteor", "0.0000", "1.0000", "+1.0000", "-", "-"]


def test_the_command(files: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.json"
    assert main([*files, f"--json={out}", "--no-meteor", "--resamples=200", "--seed=3"]) == 0
    printed = capsys.readouterr().out
    assert "60 examples, 200 resamples, seed 3\n95 % intervals resample 60 rows" in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("bleu4 "))
    saved = json.loads(out.read_text())
    assert saved["a"] == files[0]
    (against,) = saved["comparisons"]
    assert against["b"] == files[1]
    saved_bleu = against["figures"]["bleu4"]
    assert f"{saved_bleu['difference']:+.4f}" in line
    assert saved_bleu["ci95"][0] <= saved_bleu["difference"] <= saved_bleu["ci95"][1]
    assert (saved["examples"], saved["resamples"], saved["uncertain"]) == (60, 200, "positive")
    assert saved["resampled_rows"] == 60


def test_undefined_metrics_are_null_in_the_file(tmp_path: Path) -> None:
    files = [save(tmp_path / name, BAD[:1]) for name in ("a.jsonl", "b.jsonl")]
    assert main([*files, f"--json={tmp_path / 'out.json'}", "--no-meteor", "--resamples=5"]) == 0
    saved = json.loads((tmp_path / "out.json").read_text(), parse_constant=pytest.fail)
    assert set(saved["comparisons"][0]["figures"]["cider"].values()) == {None}


def test_meteor_that_is_missing_is_one_line(files, monkeypatch, capsys) -> None:
    monkeypatch.setattr(program.text, "meteor_missing", lambda: "METEOR is left out: no java")
    assert main([*files, "--resamples=5"]) == 0
    assert capsys.readouterr().out.endswith("\n\nMETEOR is left out: no java\n")


def test_mistakes_are_one_line_and_status_one(files, tmp_path: Path, capsys) -> None:
    a, b = files
    (tmp_path / "bad.jsonl").write_text(Path(a).read_text() + "{}\n")
    empty = save(tmp_path / "empty.jsonl", [replace(each, reference="") for each in BAD])
    cases = {
        (a, str(tmp_path / "none.jsonl")): "none.jsonl: No such file or directory",
        (a, str(tmp_path / "bad.jsonl")): "bad.jsonl, line 61: no id and no reference and no hypothesis in the row",
        (a, save(tmp_path / "short.jsonl", GOOD[:3])): "3 ids in both, 57 only in A",
        (empty, empty): "60 of 60 references are empty",
        (a, b, f"--json={tmp_path}", "--resamples=5"): "Is a directory",
    }
    for arguments, message in cases.items():
        assert main([*arguments, "--no-meteor"]) == 1
        captured = capsys.readouterr()
        assert captured.err.startswith("error: ")
        assert message in captured.err
        assert captured.err.count("\n") == 1
        assert not captured.out
    for arguments in ([a], [a, b, "--resamples=0"], [a, b, "--seed=-1"], [a, b, "--uncertain=maybe"], [a, b, "--js=x"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_a_missing_library_is_one_line(files, monkeypatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.bleu", None)
    assert main([*files, "--no-meteor"]) == 1
    assert capsys.readouterr().err == "error: BLEU needs sacrebleu: pip install 'medvill_jax[generate]'\n"


def test_help_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "medvill_jax.metrics.compare", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    for word in ("paired bootstrap", "two-sided", "Holm", "bleuN_upstream", "--json", "Exit status"):
        assert word in done.stdout

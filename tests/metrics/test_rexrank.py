"""ReXrank's form, with its keys."""

import json
from pathlib import Path

import pytest

from medvill_jax.metrics.predictions import Prediction, Writer
from medvill_jax.metrics.rexrank import RexrankError, main, submission

STUDIES = {
    "50": {"image_path": ["p10/s50/aa-1.jpg", "p10/s50/bb-2.jpg"], "key_image_path": "p10/s50/bb-2.jpg", "context": {}},
    "51": {"image_path": ["p10/s51/cc-3.jpg"], "section_findings": "Ä"},
    "52": {"image_path": "p10/s52/dd.jpg"},
}


def of(**texts: str) -> list[Prediction]:
    return [Prediction(name.replace("_", "-"), "x", text) for name, text in texts.items()]


def test_predictions_find_their_study() -> None:
    out = submission(STUDIES, of(aa_1="side", bb_2="front", s51="by study", dd=""))
    assert {study: fields.pop("model_prediction") for study, fields in out.items()} == {
        "50": "front",
        "51": "by study",
        "52": "",
    }
    assert out == STUDIES
    with pytest.raises(RexrankError, match=r"2 of 3 studies have no prediction \(such as '51'\)"):
        submission(STUDIES, of(aa_1="side"))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Writer(tmp_path / "p.jsonl") as out:
        for row in of(aa_1="a", cc_3="c", dd="d"):
            out.write(row)
    test = tmp_path / "test.json"
    test.write_text(json.dumps(STUDIES))
    arguments = [str(tmp_path / "p.jsonl"), f"--test={test}", f"--out={tmp_path / 'out.json'}"]
    assert main(arguments) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["51"] == {**STUDIES["51"], "model_prediction": "c"}
    assert capsys.readouterr().out.startswith("3 studies: ")
    for content, message in (("[]", "expected one object"), ("{", "not a JSON file"), (None, "No such file")):
        test.unlink() if content is None else test.write_text(content)
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    test.write_text(json.dumps(STUDIES))
    assert main([*arguments[:2], f"--out={tmp_path}"]) == 1
    assert main([*arguments[:2], f"--out={tmp_path / 'no' / 'out.json'}"]) == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out.json", "p.jsonl", "test.json"]

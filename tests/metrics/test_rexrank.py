"""ReXrank's form, with its keys."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from medvill_jax.metrics.predictions import Prediction, Writer
from medvill_jax.metrics.rexrank import RexrankError, main, submission

# Three studies as ReXrank describes those of MIMIC-CXR, down to its NaN; films, patients and words are made up.
EXAMPLE = Path(__file__).with_name("rexrank_example.json")
# What every study of its three published descriptions has, and is scored by.
PUBLISHED = {
    "image_path": list,
    "key_image_path": str,
    "frontal_lateral": list,
    "context": str,
    "section_findings": (str, float),
    "section_impression": (str, float),
    "report": str,
}
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


def plain(value: Any) -> Any:
    """NaN is not even itself."""
    return json.loads(json.dumps(value), parse_constant=str)


def test_the_export_has_the_published_form(tmp_path: Path) -> None:
    studies = json.loads(EXAMPLE.read_text())
    with Writer(tmp_path / "p.jsonl") as out:
        for fields in studies.values():
            name = Path(fields["key_image_path"]).stem
            out.write(Prediction(name, "reference", f"about {name}"))
    assert main([str(tmp_path / "p.jsonl"), f"--test={EXAMPLE}", f"--out={tmp_path / 'out.json'}"]) == 0
    written = json.loads((tmp_path / "out.json").read_text())
    assert list(written) == list(studies) == ["50000101", "50000102", "50000103"]
    for study, fields in written.items():
        assert list(fields) == [*studies[study], "model_prediction"]
        for name, kind in PUBLISHED.items():
            assert isinstance(fields[name], kind), name
        assert len(fields["frontal_lateral"]) == len(fields["image_path"])
        assert fields["key_image_path"] in fields["image_path"]
        assert fields.pop("model_prediction") == f"about {Path(fields['key_image_path']).stem}"
    assert plain(written) == plain(studies)
    assert math.isnan(written["50000102"]["section_impression"])


def test_ids_of_every_published_data_set_find_their_study() -> None:
    # The films of IU X-ray are called 0.png and 1.png in every folder, those of CheXpert view1_frontal.png.
    open_i = {
        name: {"key_image_path": f"{name}/0.png", "image_path": [f"{name}/0.png", f"{name}/1.png"]}
        for name in ("CXR3030_IM-1405", "CXR38_IM-1911", "CXR1_1_IM-0001")
    }
    for ids in (
        ("CXR3030_IM-1405-1001", "CXR38_IM-1911-1001", "CXR1_1_IM-0001-4001"),
        ("3030_IM-1405-1001.dcm", "38_IM-1911-1001.dcm", "1_IM-0001-4001.dcm"),
        ("CXR3030_IM-1405/0", "CXR38_IM-1911/1", "CXR1_1_IM-0001"),
    ):
        out = submission(open_i, [Prediction(name, "x", f"of {name}") for name in reversed(ids)])
        assert [fields["model_prediction"] for fields in out.values()] == [f"of {name}" for name in ids]
    with pytest.raises(RexrankError, match="3 of 3 studies have no prediction"):
        submission(open_i, [Prediction("0", "x", "of whom?")])
    paths = {f"patient64{n}_study1": f"valid/patient64{n}/study1/view1_frontal.png" for n in range(3)}
    chexpert = {study: {"key_image_path": path, "image_path": [path]} for study, path in paths.items()}
    for ids in (
        tuple(paths),
        tuple(path.removesuffix(".png") for path in paths.values()),
        tuple(path.removesuffix(".png").removeprefix("valid/") for path in paths.values()),
    ):
        out = submission(chexpert, [Prediction(name, "x", f"of {name}") for name in ids])
        assert [fields["model_prediction"] for fields in out.values()] == [f"of {name}" for name in ids]
    with pytest.raises(RexrankError, match="3 of 3"):
        submission(chexpert, [Prediction("view1_frontal", "x", "of whom?")])


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

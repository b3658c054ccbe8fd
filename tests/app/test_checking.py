"""Sentences of reports, checked: by the demo's own matching head, by one that knows the films, and by a blind one."""

import dataclasses
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import medvill_jax
from benchmarks import checked_sentences
from data_prep import phantom
from medvill_jax.app import calibrating, checking
from medvill_jax.app.defaults import DECODING
from medvill_jax.app.model import Model
from medvill_jax.app.results import Report
from medvill_jax.cli import shown
from medvill_jax.cli.main import main
from medvill_jax.data import records
from medvill_jax.errors import ConfigError
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import add_entry, read_export
from medvill_jax.metrics import clinical_denial
from medvill_jax.metrics.platt import Curve
from medvill_jax.web import demo
from tests.conftest import TESTS

GOLDEN = TESTS / "golden" / "export"
FILMS = sorted((demo.FOLDER / "films").iterdir())
OFTEN_WRONG = (
    "A displaced left rib fracture is seen. No atelectasis, opacity, edema, pleural effusion, or cardiomegaly."
)
NONE = Curve(0.0, 0.0, None, None, None, None, 3, 3, 3, 0)
GOOD = Curve(1.0, 0.0, 0.9, (0.8, 1.0), 0.5, (0.3, 0.5), 100, 60, 50, 30)
BLIND = dataclasses.replace(GOOD, auroc=0.5, auroc_ci95=(0.4, 0.6), gain_ci95=(-0.1, 0.1))


@pytest.fixture(scope="module")
def model() -> Model:
    """The demo's, which has no calibration."""
    return medvill_jax.load(demo.EXPORT)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantoms whose films are those that the planted heads know."""
    return phantom.prepare(tmp_path_factory.mktemp("phantom"), studies=160, seed=3, image_size=96, progress=False)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A copy of the demo's export."""
    return shutil.copytree(demo.EXPORT, tmp_path / "export")


def made_with(**changed: Any) -> checking.MadeWith:
    decoding = {name: medvill_jax.load(demo.EXPORT).options("report")[name] for name in DECODING}
    made = checking.MadeWith("validation", "drawn", "0", read_export(demo.EXPORT).weights, decoding)
    return dataclasses.replace(made, **changed)


def calibrated(export: Path, affirms: Curve = GOOD, denies: Curve = GOOD, **made: Any) -> Model:
    calibrating.record(export, {checking.AFFIRMS: affirms, checking.DENIES: denies}, made_with(**made))
    return medvill_jax.load(export)


def test_a_score_is_that_of_the_sentence_less_that_of_its_denial(model: Model) -> None:
    report = model.report(FILMS[0], verify="score")
    plain = model.report(FILMS[0])
    assert (report.text, plain.sentences) == (plain.text, None)
    assert report.sentences is not None
    assert " ".join(sentence.text for sentence in report.sentences) == report.text
    for sentence in report.sentences:
        opposite = clinical_denial.denied(sentence.text)
        if opposite is None:
            assert sentence.score is None
        else:
            stated, denied = model.match(FILMS[0], [sentence.text, opposite]).scores
            assert sentence.score == pytest.approx(stated - denied, abs=2e-3)
        assert (sentence.checked, sentence.probability, sentence.marked) == (False, None, False)
    assert any(sentence.score for sentence in report.sentences)


def test_a_film_has_the_same_sentences_among_others(export: Path) -> None:
    model = calibrated(export)
    alone = [model.report(film, verify=True) for film in FILMS[:3]]
    streamed = [*model.stream(FILMS[:3], "report", batch_size=2, verify=True)]
    for one, other in zip(alone, streamed, strict=True):
        assert isinstance(other, Report)
        assert one.options == other.options
        assert one.sentences is not None
        assert other.sentences is not None
        for a, b in zip(one.sentences, other.sentences, strict=True):
            assert (a.text, a.checked, a.marked) == (b.text, b.checked, b.marked)
            assert a.score == (None if b.score is None else pytest.approx(b.score, abs=2e-3))


def test_marking_and_dropping(export: Path) -> None:
    model = calibrated(export)
    marked = model.report(FILMS[0], verify=True)
    assert marked.sentences is not None
    probabilities = [sentence.probability for sentence in marked.sentences if sentence.probability is not None]
    assert probabilities
    threshold = (min(probabilities) + max(probabilities)) / 2
    marked = model.report(FILMS[0], verify="mark", threshold=threshold)
    dropped = model.report(FILMS[0], verify="drop", threshold=threshold)
    assert marked.text == model.report(FILMS[0]).text
    assert marked.sentences == dropped.sentences
    assert marked.sentences is not None
    for sentence in marked.sentences:
        assert sentence.checked == (sentence.score is not None)
        assert sentence.marked == (sentence.probability is not None and sentence.probability < threshold)
    assert any(sentence.marked for sentence in marked.sentences)
    assert dropped.text == " ".join(sentence.text for sentence in marked.sentences if not sentence.marked)
    emptied = model.report(FILMS[0], verify="drop", threshold=1.0)
    assert "every sentence was left out" in emptied.warnings or emptied.text
    row = json.loads(json.dumps(dropped.to_dict()))
    assert row["sentences"] == [dataclasses.asdict(sentence) for sentence in marked.sentences]
    assert row["options"]["verify"] == "drop"
    assert row["options"]["threshold"] == threshold
    assert row["options"]["calibration"] == {"affirms": [1.0, 0.0], "denies": [1.0, 0.0]}
    told = shown.text(dropped).splitlines()
    assert told[0] == dropped.text
    assert sum(line.endswith("  dropped") for line in told) == sum(sentence.marked for sentence in marked.sentences)


def test_sentences_of_a_blind_kind_are_not_checked(export: Path) -> None:
    model = calibrated(export, affirms=BLIND)
    report = model.report(FILMS[0], verify="drop", threshold=1.0)
    [warning] = [warning for warning in report.warnings if "not checked" in warning]
    assert "sentences that affirm a finding are not checked" in warning
    assert "AUROC 0.50, 95 % interval 0.40 to 0.60" in warning
    assert report.sentences is not None
    for sentence in report.sentences:
        affirms = sentence.score is not None and checking.kind_of(sentence.text) == checking.AFFIRMS
        assert sentence.checked == (sentence.score is not None and not affirms)
    assert report.options["calibration"] == {"affirms": None, "denies": [1.0, 0.0]}


def without_network(model: Model, monkeypatch: pytest.MonkeyPatch) -> Model:
    """The model, which writes one sentence whatever the film and the options, and scores all alike."""
    written = [{"text": "No pleural effusion.", "log_prob": 0.0, "token_ids": [1]}]
    monkeypatch.setattr(model.arrays, "generate", lambda images, **_: written)
    monkeypatch.setattr(model.arrays, "match_pairs", lambda images, of, *_, **__: np.zeros(len(of)))
    return model


def test_few_patients_are_too_few_to_tell(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = dataclasses.replace(GOOD, wrong_clusters=19)
    report = without_network(calibrated(export, denies=few), monkeypatch).report(FILMS[0], verify=True)
    [warning] = [warning for warning in report.warnings if "not checked" in warning]
    assert (
        "sentences that deny findings are not checked: too few to tell, right ones of 50 patients and wrong" in warning
    )
    assert "100 sentences of validation" in warning
    told = calibrating.lines({checking.AFFIRMS: GOOD, checking.DENIES: few}, "validation")
    assert told[0].endswith("they are checked")
    assert "not checked: too few to tell" in told[1]


def test_reports_that_are_written_otherwise_are_warned_of(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = without_network(calibrated(export), monkeypatch)
    assert model.report(FILMS[0], verify=True, seed=5).warnings == ()
    assert model.report(FILMS[0], verify="score", beam_size=2).warnings == ()
    [warning] = model.report(FILMS[0], verify=True, beam_size=2, max_len=100).warnings
    assert warning == (
        "the calibration's reports were not written with beam_size=2, max_len=100: trust probabilities less"
    )


def test_a_calibration_is_of_the_weights_that_it_was_made_with(export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = checking.entry({checking.AFFIRMS: GOOD, checking.DENIES: GOOD}, made_with(weights="0"))
    add_entry(export, checking.ENTRY, entry)
    model = without_network(medvill_jax.load(export), monkeypatch)
    assert model.report(FILMS[0], verify="score").text
    with pytest.raises(ConfigError, match="made with other weights: calibrate again"):
        model.report(FILMS[0], verify=True)
    add_entry(export, checking.ENTRY, {**entry, "made_with": {"split": "test"}})
    with pytest.raises(HubError, match="its entry 'sentences' does not fit"):
        medvill_jax.load(export)


class Planted:
    """Writes reports of which some sentences are another film's, and scores sentences by what it is told of films."""

    def __init__(self, model: Model, data: Path, score: Callable[[bool, np.random.Generator], float]):
        self._model, self._score, self._rng = model, score, np.random.default_rng(0)
        self.references: dict[bytes, str] = {}
        self.written: dict[bytes, str] = {}
        self.prior: dict[str, float] = {}
        for split in ("train", "test"):
            source = records.open_split(data, split)
            rows = [source[number] for number in range(len(source))]
            texts = [row["text"].decode() for row in rows]
            for number, row in enumerate(rows):
                film = model.read(row["image"]).pixels.tobytes()
                own, other = (clinical_denial.sentences(texts[n]) for n in (number, (number + 7) % len(rows)))
                self.references[film] = texts[number]
                self.written[film] = " ".join([*own, *other])

    def generate(self, images: np.ndarray, **options: Any) -> list[dict[str, Any]]:
        return [{"text": self.written[image.tobytes()], "log_prob": 0.0, "token_ids": [1]} for image in images]

    def match_pairs(self, images: np.ndarray, image_of: Sequence[int], ids: Any, lens: Any, **_: Any) -> np.ndarray:
        assert self._model.tokenizer is not None
        found = []
        for image, row, length in zip(image_of, ids, lens, strict=True):
            claimed = clinical_denial.claims(self._model.tokenizer.decode(row[:length]))
            right = clinical_denial.holds(claimed, clinical_denial.claims(self.references[images[image].tobytes()]))
            found.append(self._score(right, self._rng) + 9 * self.prior.get(str(claimed), 0.5))
        return np.array(found)

    def be_prejudiced(self) -> None:
        """All reports end alike, mostly wrongly, and scores are of how often claims hold, whatever the film."""
        held: dict[str, list[bool]] = {}
        for film, own in self.references.items():
            self.written[film] = f"{own} {OFTEN_WRONG}"
            report = clinical_denial.claims(own)
            for sentence in clinical_denial.sentences(self.written[film]):
                claimed = clinical_denial.claims(sentence)
                held.setdefault(str(claimed), []).append(clinical_denial.holds(claimed, report))
        self.prior = {claimed: float(np.mean(holds)) for claimed, holds in held.items()}

    def match(self, images: np.ndarray, ids: Any, lens: Any, **_: Any) -> np.ndarray:
        images_of, texts = np.divmod(np.arange(len(images) * len(ids)), len(ids))
        return self.match_pairs(images, images_of.tolist(), ids[texts], lens[texts]).reshape(len(images), -1)

    def put(self, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("generate", "match_pairs", "match"):
            monkeypatch.setattr(model.arrays, name, getattr(self, name))


def test_a_head_that_knows_the_films_drops_what_is_wrong_and_keeps_what_is_right(
    export: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = medvill_jax.load(export)
    planted = Planted(model, data, lambda right, rng: (2 if right else -2) + rng.normal())
    planted.put(model, monkeypatch)
    calibration = calibrating.fit(calibrating.write(model, data, "train"))
    for curve in calibration.values():
        assert curve.tells
        assert curve.auroc is not None
        assert curve.control is not None
        assert curve.control < 0.8 < curve.auroc
    calibrating.record(export, calibration, made_with())
    again = medvill_jax.load(export)
    planted.put(again, monkeypatch)
    written = calibrating.write(again, data, "test")
    source = records.open_split(data, "test")
    films = [source[number]["image"] for number in range(len(source))]
    right_before, right_after, kept_right = [], [], []
    for report, dropped in zip(written, again.report(films, verify="drop"), strict=True):
        assert dropped.sentences is not None
        for right, sentence in zip(report.right, dropped.sentences, strict=True):
            if right is None:
                assert sentence.text in str(dropped.text)  # what claims nothing stays
            else:
                right_before.append(right)
                right_after += [] if sentence.marked else [right]
                kept_right += [not sentence.marked] if right else []
    made = made_with(split="train")
    figures = checked_sentences.measured(written, calibration, made, "test", checking.THRESHOLD)
    clinical = figures["clinical"]["13, without No Finding"]
    assert clinical["after precision"][0] > clinical["before precision"][0] + 0.1
    assert clinical["change of precision"][1] > 0
    assert figures["clinical"]["dropped sentences"] == len(right_before) - len(right_after)
    best, *_, last = [share for _, share in figures["coverage"][checking.AFFIRMS]]
    assert best > last
    assert len(checked_sentences.picture(figures).axes) == 2
    assert "| AUROC, train | AUROC, test |" in checked_sentences.table(figures)[0]
    assert sum("| yes |" in line for line in checked_sentences.table(figures)) == 2
    assert np.mean(right_before) < 0.85
    assert np.mean(right_after) > 0.93
    assert np.mean(kept_right) > 0.93


@pytest.mark.parametrize("prejudiced", [False, True])
def test_a_blind_head_cannot_check(export: Path, data: Path, monkeypatch: pytest.MonkeyPatch, prejudiced: bool) -> None:
    # A head may know which sentences are right most often, whatever the film: it ranks well, and is blind all the same.
    model = medvill_jax.load(export)
    planted = Planted(model, data, lambda right, rng: rng.normal())
    if prejudiced:
        planted.be_prejudiced()
    planted.put(model, monkeypatch)
    calibration = calibrating.fit(calibrating.write(model, data, "train"))
    for curve in calibration.values():
        assert curve.auroc_ci95 is not None
        assert (curve.auroc_ci95[0] > 0.5) == prejudiced
        assert not curve.tells
    calibrating.record(export, calibration, made_with())
    again = medvill_jax.load(export)
    planted.put(again, monkeypatch)
    film = records.open_split(data, "test")[0]["image"]
    report = again.report(film, verify="drop")
    assert report.text == again.report(film).text
    assert report.sentences is not None
    assert not any(sentence.checked for sentence in report.sentences)
    assert sum("not checked" in warning for warning in report.warnings) == 2


def test_a_calibration_is_an_entry_of_the_export(export: Path) -> None:
    before = json.loads((export / "config.json").read_text())
    mode = (export / "config.json").stat().st_mode
    calibrated(export, affirms=BLIND, denies=NONE)
    after = json.loads((export / "config.json").read_text())
    found, made = checking.calibration(read_export(export))
    assert found == {"affirms": BLIND, "denies": NONE}
    assert made == made_with()
    assert (export / "config.json").stat().st_mode == mode
    del after["extra"][checking.ENTRY]
    assert after == before
    assert calibrated(export).report(FILMS[0], verify=True).options["calibration"]["affirms"] == [1.0, 0.0]


def test_exports_that_cannot_be_calibrated(export: Path, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"no export folder .*nowhere on this disk"):
        add_entry(tmp_path / "nowhere", "a", 1)
    (export / "config.json").rename(tmp_path / "blob")
    (export / "config.json").symlink_to(tmp_path / "blob")
    with pytest.raises(HubError, match="is a link, as in the cache of Hugging Face"):
        add_entry(export, "a", 1)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"verify": True}, "`medvill calibrate DATA --model=EXPORT` measures it on validation"),
        ({"verify": "erase"}, "verify='erase': give True or one of score, mark, drop"),
        ({"verify": 1}, "verify=1: give True"),
        ({"threshold": 0.5}, "threshold is for verify=mark and verify=drop"),
        ({"verify": "score", "threshold": 0.5}, "threshold is for verify=mark and verify=drop"),
        ({"verify": True, "threshold": 1.5}, "threshold=1.5 is no probability"),
        ({"verify": True, "threshold": "a"}, "threshold='a' is no probability"),
    ],
)
def test_what_does_not_fit_is_one_line(model: Model, options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told.replace("(", r"\(")) as error:
        model.report(FILMS[0], **options)
    assert "\n" not in str(error.value)


def test_an_export_without_a_matching_head_says_so() -> None:
    with pytest.raises(ConfigError, match="trained for generation, and sentences are checked by a matching head"):
        medvill_jax.load(GOLDEN / "generate").report(FILMS[0], verify="score")


def test_data_without_reports_are_named(model: Model, data: Path) -> None:
    with pytest.raises(records.DataError, match="nowhere"):
        calibrating.write(model, data / "nowhere", "validation")


def test_the_command(export: Path, data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(data), f"--model={export}", "--split=test"]) == 0
    captured = capsys.readouterr()
    told = captured.out.splitlines()
    assert captured.err.startswith("warning: calibrated on test, so figures on test will look too good")
    assert "reports of test" in told[0]
    assert ["affirm a finding" in told[1], "deny findings" in told[2]] == [True, True]
    calibration, made = checking.calibration(read_export(export))
    assert set(calibration) == {*checking.KINDS}
    assert made == made_with(split="test", data=data.name, records=calibrating.fingerprint(data, "test"))
    assert "sentences of test" in told[1]
    arguments = [f"--model={export}", f"--data={data}", f"--out={export.parent / 'out'}"]
    assert checked_sentences.main([*arguments, "--split=train+test"]) == 1
    assert "the calibration was made on these films" in capsys.readouterr().err
    assert not (export.parent / "out").exists()
    assert main(["predict", str(FILMS[0]), f"--model={export}", "--task=report", "--verify=drop", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert len(row["sentences"]) >= 1
    assert main(["predict", str(FILMS[0]), f"--model={export}", "--task=findings", "--verify=drop"]) == 2
    assert "--task=findings takes no --verify" in capsys.readouterr().err
    assert main(["calibrate", str(data), f"--model={GOLDEN / 'classify'}"]) == 2
    assert "not for the task 'report'" in capsys.readouterr().err

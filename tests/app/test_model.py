"""A model asked about films: what evaluation computed of their records, in any form and number."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

import medvill_jax
from medvill_jax.app import gate
from medvill_jax.app.model import Model
from medvill_jax.data import records
from medvill_jax.errors import ConfigError
from medvill_jax.films.limits import ImageError
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.export import checksum
from medvill_jax.tasks import registry
from tests.app.conftest import SPLITS, Trained

GOLDEN = Path(__file__).parents[1] / "golden" / "export"
Train = Callable[..., Trained]
TEST_FILMS = [f"test{number}" for number in range(SPLITS["test"])]


def test_findings_are_those_of_the_evaluation(trained: Train) -> None:
    run = trained("classify")
    rows = {row["id"]: row for row in run.rows()}
    assert rows.keys() == {*TEST_FILMS}
    results = run.model.findings([run.films / f"{name}.png" for name in TEST_FILMS])
    for name, found in zip(TEST_FILMS, results, strict=True):
        expected = rows[name]["probabilities"]
        assert found.probabilities.keys() == expected.keys()
        np.testing.assert_allclose([*found.probabilities.values()], [*expected.values()], rtol=0, atol=1e-6)
        thresholds = dict(zip(run.model.export.label_names, run.model.export.extra["thresholds"], strict=True))
        assert found.thresholds == thresholds
        assert found.positive == {name: p >= thresholds[name] for name, p in found.probabilities.items()}
    # Films differ, so the comparison would notice films that are mixed up.
    assert len({tuple(np.round([*found.probabilities.values()], 5)) for found in results}) == len(TEST_FILMS)


def test_reports_are_those_of_the_evaluation(trained: Train) -> None:
    run = trained("generate")
    rows = {row["id"]: row for row in run.rows()}
    for name in TEST_FILMS[:3]:
        report = run.model.report(run.films / f"{name}.png")
        assert report.text == rows[name]["hypothesis"]
        assert report.log_prob == pytest.approx(rows[name]["log_prob"], abs=1e-4)
        assert report.options["max_len"] == 12


@pytest.mark.parametrize("attention", ["bidirectional", "mixed"])
@pytest.mark.parametrize("targets", ["soft", "hard"])
def test_answers_are_those_of_the_evaluation(trained: Train, targets: str, attention: str) -> None:
    run = trained("vqa", targets=targets)
    model = masked(run.model, attention)
    held_out = run.task.evaluator._records_of("test")
    [image_names, asked] = run.task.evaluator._columns("test", ("image_name", "question")).values()
    rows = run.rows()
    assert len(rows) == len(held_out) == 10
    for row, image, question in zip(rows, image_names, asked, strict=True):
        answer = model.ask(run.films / image, question)
        assert (answer.answer, answer.options["question"]) == (row["predicted"], question)
        assert 0 < answer.probability < 1
    logits = run.task.evaluator._evaluation.outputs(run.task.evaluator._logits, best_state(run), held_out)
    first, logit = model.ask(run.films / image_names[0], asked[0]), logits[0].astype(np.float64)
    probability = {"soft": 1 / (1 + np.exp(-logit)), "hard": np.exp(logit) / np.exp(logit).sum()}[targets]
    assert first.answer_id == logit.argmax()
    assert first.probability == pytest.approx(probability.max(), abs=1e-6)


def best_state(run: Trained) -> Any:
    return run.task.trainer.best_state()[1]


def masked(model: Model, attention: str) -> Model:
    """The same weights under another attention mask."""
    return Model(model.export, dataclasses.replace(model.config, attention=attention), "float32")


def test_matching_is_that_of_the_ranking(trained: Train) -> None:
    run = trained("retrieve")
    scores = np.load(run.task.workdir / "itm_scores.npy")  # of the matching head alone
    held_out = run.task.evaluator._records_of("test")
    names = [held_out.identifier(row) for row in range(len(held_out))]
    texts = [held_out.text(row) for row in range(len(held_out))]
    films = [run.films / f"{name}.png" for name in names]
    matches = run.model.match(films, texts)
    images = np.stack([held_out.image(row, held_out.rng(row), own_image=True) for row in range(len(held_out))])
    slots = [held_out.slots(row) for row in range(len(held_out))]
    ids, lens = np.stack([ids for ids, _ in slots]), np.array([length for _, length in slots])
    scale = run.model.arrays._functions_with("contrast").scale()
    expected = scores + scale * run.model.arrays.similarity(images, ids, lens)
    np.testing.assert_allclose([match.scores for match in matches], expected, rtol=0, atol=1e-4)
    for match in matches:
        np.testing.assert_allclose(match.probabilities, 1 / (1 + np.exp(-np.array(match.scores))), atol=1e-7)
        assert match.options == {"task": "match", "texts": texts, "dtype": "float32"}
    vectors = np.stack([embedding.vector for embedding in run.model.embed(films)])
    assert run.model.embed(films[0]).kind == "projection"
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(vectors, np.concatenate([run.model.arrays.embed(images)[0]]), atol=1e-6)


def test_a_pretrained_model_matches_by_its_own_head(trained: Train) -> None:
    run = trained("pretrain")
    assert run.model.tasks == ("match",)
    film, text = run.films / "test0.png", "film 0 shows nothing of note"
    match = run.model.match(film, text)
    held_out = run.task.evaluator._records_of("test")
    row = [held_out.identifier(row) for row in range(len(held_out))].index("test0")
    image = held_out.image(row, held_out.rng(row), own_image=True)[None]
    pieces = run.model.tokenizer.encode(text)[:14]
    ids = np.array([[*pieces, run.model.config.sep_id]])
    itm = np.asarray(run.model.arrays.logits(image, ids, np.array([ids.shape[1]]))["itm"])[0]
    assert match.scores == (pytest.approx(itm[1] - itm[0], abs=1e-5),)
    # Under `mixed` the bidirectional half matches, and under s2s no image sees the text.
    mixed, both = (masked(run.model, attention).match(film, text) for attention in ("mixed", "bidirectional"))
    assert mixed.scores == both.scores
    assert masked(run.model, "s2s").tasks == ()
    pooled = run.model.embed(film)
    assert (pooled.kind, pooled.vector.shape) == ("pooled", (16,))


def test_every_form_of_a_film_gives_the_same_answer(trained: Train) -> None:
    run = trained("classify")
    path = run.films / "test1.png"
    image = Image.open(path)
    forms: list[Any] = [path, str(path), path.read_bytes(), image, np.asarray(image), np.asarray(image.convert("RGB"))]
    results = [run.model.findings(form) for form in forms]
    assert [result.film for result in results] == [str(path), str(path), None, None, None, None]
    assert all(result.probabilities == results[0].probabilities for result in results)


def test_a_film_is_read_once_for_many_questions(trained: Train, tmp_path: Path) -> None:
    model, path = trained("classify").model, tmp_path / "film.png"
    shutil.copy(trained("classify").films / "test0.png", path)
    expected, film = model.findings(path), model.read(path)
    path.unlink()
    assert model.findings(film) == expected
    for found in model.findings([film, film]):
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    other = dataclasses.replace(film, pixels=film.pixels[:32, :32])
    with pytest.raises(ConfigError, match="read for an input of 32 pixels, the model has 64"):
        model.findings(other)


def test_a_stream_answers_as_single_films_do_and_names_those_that_fail(trained: Train, tmp_path: Path) -> None:
    run = trained("classify")
    (tmp_path / "text.png").write_text("no film")
    films: list[Any] = [run.films / f"{name}.png" for name in TEST_FILMS]
    asked = [films[0], tmp_path / "text.png", *films[1:], tmp_path / "none.png", b""]
    results = list(run.model.stream(iter(asked), "findings", batch_size=4))
    assert len(results) == len(asked)
    failed = [place for place, result in enumerate(results) if result.error is not None]
    assert failed == [1, 8, 9]
    assert results[1].film == str(tmp_path / "text.png")
    assert results[1].error.startswith(f"{tmp_path / 'text.png'}: not an image of a known format")  # pyright: ignore
    assert "\n" not in "".join(results[place].error or "" for place in failed)
    document = results[8].to_dict()
    assert document["error"] == f"no file at {tmp_path / 'none.png'}"
    assert document.keys() == {"film", "error", "warnings", "version", "weights", "options"}
    assert results[9].film is None
    sound = [result for result in results if result.error is None]
    for result, film in zip(sound, films, strict=True):
        single = run.model.findings(film)
        np.testing.assert_allclose([*result.probabilities.values()], [*single.probabilities.values()], atol=1e-6)  # pyright: ignore
        assert result.options == single.options == run.model.options("findings")
    assert [*run.model.stream([], "findings")] == []
    assert [*run.model.stream([b"", b""], "findings", batch_size=1)][1].error == "the file is empty"
    assert run.model.findings([]) == []


def test_a_stream_reads_only_a_few_batches_ahead(trained: Train) -> None:
    run = trained("classify")
    taken = []

    def films() -> Any:
        for number in range(1000):
            taken.append(number)
            yield run.films / "test0.png"

    stream = run.model.stream(films(), "findings", batch_size=2)
    next(stream)
    stream.close()  # pyright: ignore
    assert len(taken) <= 8


def test_one_bad_film_of_a_list_is_an_error(trained: Train, tmp_path: Path) -> None:
    run = trained("classify")
    with pytest.raises(ImageError, match="no file at"):
        run.model.findings([run.films / "test0.png", tmp_path / "none.png"])


def test_results_say_what_they_were_made_with(trained: Train) -> None:
    run = trained("generate")
    report = run.model.report(run.films / "test0.png", beam_size=2, max_len=5)
    document = json.loads(json.dumps(report.to_dict()))
    assert list(document) == ["film", "text", "log_prob", "warnings", "version", "weights", "options"]
    assert document["version"] == medvill_jax.__version__
    assert document["weights"] == json.loads((run.task.workdir / "export" / "config.json").read_text())["weights"]
    options = document["options"]
    assert (options["task"], options["beam_size"], options["max_len"], options["top_p"]) == ("report", 2, 5, None)
    assert report.task == "report"
    with pytest.raises(AttributeError):
        report.text = "another"  # pyright: ignore
    embedded = run.model.embed(np.eye(40, dtype=np.uint8) * 255)
    assert json.loads(json.dumps(embedded.to_dict()))["vector"] == embedded.vector.tolist()
    sampled = [run.model.report(run.films / "test0.png", top_p=1.0, seed=seed).text for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]


def test_what_a_reader_should_know_is_a_warning(trained: Train) -> None:
    run = trained("retrieve")
    blank = np.full((40, 40), 7, np.uint8)
    [match] = run.model.match([blank], ["film shows edema " * 20])
    assert match.warnings == (
        gate.WARNINGS["other"],
        "the text is longer than the 14 word pieces that the model reads, and cut",
    )
    of_film = run.model.embed(run.films / "test0.png").warnings
    assert "lacks 2 of the 3 words" in run.model.match(run.films / "test0.png", ["Größe 漢 film"]).warnings[-1]
    assert run.model.match(run.films / "test0.png", ["film shows edema"]).warnings == of_film
    cut = trained("generate").model.report(run.films / "test0.png", max_len=2, min_len=2, beam_size=1)
    assert cut.warnings == (
        *of_film,
        "the report is cut: it has max_len=2 word pieces and no end",
    )


def test_what_does_not_fit_says_what_does(trained: Train) -> None:
    run, film = trained("classify"), np.eye(40, dtype=np.uint8)
    model = run.model
    for call, message in (
        (lambda: model.report(film), r"trained for classification, not for the task 'report'; it can do: findings"),
        (lambda: model.stream([], "guess"), r"no task 'guess'; there are findings, report, ask, match, embed"),
        (lambda: model.stream([], "findings", batch_size=0), r"batch_size=0 is below 1"),
        (lambda: model.stream([], "findings", beams=2), r"findings has no option beams; it has report"),
        (lambda: model.findings(film, report="edema"), r"trained on films alone: leave report out"),
        (lambda: trained("vqa").model.ask(film, " ?"), r"the question has no word"),
        (lambda: trained("vqa").model.stream([film], "ask"), r"give question=TEXT"),
        (lambda: trained("vqa").model.ask(film, 3), r"the question is a int, not a text"),  # pyright: ignore
        (lambda: trained("retrieve").model.match(film, []), r"there is no text: give at least one"),
        (lambda: trained("retrieve").model.match(film, ["a", "___"]), r"the text 2 of 2 has no word"),
        (lambda: trained("generate").model.report(film, max_len=500), r"max_len=500 tokens do not fit"),
        (lambda: trained("generate").model.report(film, beams=2), r"report has no option beams; it has beam_size"),
        (lambda: masked(trained("pretrain").model, "s2s").match(film, "a"), r"it can only embed films"),
        (lambda: model.findings(3), r"a film is a path, bytes of a file, .* not a int"),
        (
            lambda: model.findings(np.zeros((2, 40, 40), np.uint8)),
            r"not an array uint8 \(2, 40, 40\); a batch is",
        ),
        (lambda: model.findings(np.zeros((4, 4), np.float32)), r"not an array float32 \(4, 4\)"),
    ):
        with pytest.raises(ConfigError, match=message):
            call()
    with pytest.raises(ImageError, match="holds no pixels"):
        model.findings(np.zeros((0, 4), np.uint8))


def test_a_classifier_of_films_and_reports_wants_both(trained: Train) -> None:
    run = trained("classify", inputs="image+report")
    film = run.films / "test0.png"
    held_out = run.task.evaluator._records_of("test")
    row = [held_out.identifier(row) for row in range(len(held_out))].index("test0")
    found = run.model.findings(film, report=held_out.text(row))
    expected = next(line for line in run.rows() if line["id"] == "test0")["probabilities"]
    np.testing.assert_allclose([*found.probabilities.values()], [*expected.values()], rtol=0, atol=1e-6)
    with pytest.raises(ConfigError, match="trained on films with their reports: give report=TEXT"):
        run.model.findings(film)
    with pytest.raises(ConfigError, match="a report belongs to one film"):
        run.model.findings([film, film], report="edema")


def test_exports_record_what_films_and_texts_need(trained: Train, tmp_path: Path) -> None:
    run = trained("generate")
    extra = run.model.export.extra
    assert (extra["films"], extra["text_len"]) == ({"image_size": 24}, 14)
    assert (extra["decode"]["max_len"], "batch_size" in extra["decode"]) == (12, False)
    half = medvill_jax.load(run.task.workdir / "export", dtype="bfloat16", compat="upstream")
    options = half.options("report")
    assert (options["dtype"], options["compat"]["pad_visible"]) == ("bfloat16", half.config.compat.pad_visible)
    assert "compat" not in run.model.options("report")
    shutil.copytree(run.task.workdir / "export", tmp_path / "export")
    config = tmp_path / "export" / "config.json"
    config.write_text(config.read_text().replace('"image_size": 24', '"image_size": 24, "rotated": true'))
    with pytest.raises(HubError, match="prepares films by rotated, unknown here: upgrade medvill_jax"):
        medvill_jax.load(tmp_path / "export")


def test_marks_are_read_where_training_read_them(trained: Train, tmp_path: Path) -> None:
    run = trained("pretrain")
    config, text = run.task.config.copy_and_resolve_references(), "film XXXX shows edema"
    data = shutil.copytree(config.data.path, tmp_path / "data")
    report = data / records.REPORT_FILE
    document = json.loads(report.read_text())
    document["options"]["marks"] = "keep"
    report.write_text(json.dumps(document))
    config.data.path = str(data)
    workdir = shutil.copytree(run.task.workdir.path, tmp_path / "run")
    registry.task("pretrain")(config, workdir).export_best()
    keeps = medvill_jax.load(workdir / "export")
    assert ("marks" in run.model.export.extra, keeps.export.extra["marks"]) == (False, "keep")
    dropped, kept = (model._asked.reports([text], "text").lens[0] for model in (run.model, keeps))
    assert kept > dropped == run.model._asked.reports(["film shows edema"], "text").lens[0]


@pytest.mark.parametrize(("name", "tasks"), [("classify", "findings"), ("generate", "report"), ("pretrain", "match")])
def test_exports_of_earlier_versions_answer(name: str, tasks: str) -> None:
    model = medvill_jax.load(GOLDEN / name)
    assert not {"films", "text_len", "decode"} & model.export.extra.keys()
    assert "weights" not in json.loads((GOLDEN / name / "config.json").read_text())
    assert (model.tasks, model.films.image_size, len(model.weights)) == ((tasks,), 512, 64)
    film = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    if name == "pretrain":
        assert len(model.match(film, "a film").scores) == 1
    elif name == "classify":
        # Through JPEG, as records are, but else as the arrays answer.
        near = model.arrays.classify(film[None])["probabilities"][0]
        np.testing.assert_allclose([*model.findings(film).probabilities.values()], near, atol=0.1)
    else:
        assert len(model.report(film).text) > 0
        assert model.report(film).options["max_len"] == 128


def test_weights_that_changed_are_not_loaded(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "classify", tmp_path / "export")
    config = tmp_path / "export" / "config.json"
    document = json.loads(config.read_text()) | {"weights": checksum(tmp_path / "export" / "model.safetensors")}
    config.write_text(json.dumps(document))
    assert medvill_jax.load(tmp_path / "export").weights == document["weights"]
    weights = tmp_path / "export" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(HubError, match=r"model\.safetensors is not the file that config\.json belongs to"):
        medvill_jax.load(tmp_path / "export")


def test_a_repository_in_the_cache_is_loaded_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HubError, match=r"no export folder lab/model, and no Hugging Face repository of that name in"):
        medvill_jax.load("lab/model")
    with pytest.raises(HubError, match="no export folder runs/a/export"):
        medvill_jax.load("runs/a/export")
    repository = tmp_path / "models--lab--model"
    shutil.copytree(GOLDEN / "classify", repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    assert medvill_jax.load("lab/model").tasks == ("findings",)
    (tmp_path / "lab" / "model").mkdir(parents=True)  # a folder comes first
    with pytest.raises(HubError, match="lab/model is no export"):
        medvill_jax.load("lab/model")

"""Phrase grounding as its user runs it: fine-tune, evaluate, ask; and by a model that was not trained for it."""

import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

import medvill_jax
from configs import ground, ground_maps
from data_prep.sources import ms_cxr
from medvill_jax.data import boxes, records
from medvill_jax.data.transforms import read_image
from medvill_jax.errors import ConfigError
from medvill_jax.hub.errors import HubError
from medvill_jax.metrics.grounding import MEASURES
from medvill_jax.models import relevance
from medvill_jax.tasks import ground_maps as maps_task
from medvill_jax.tasks.ground import Task
from tests.conftest import shrink


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phrases")
    ms_cxr.write_tree(folder / "tree", 30, 1, 40)
    ms_cxr.prepare(
        folder / "tree", folder / "data", image_size=40, vocab_size=300, accept_unverified=True, progress=False
    )
    return folder / "data"


@pytest.fixture
def config(phrases: Path) -> ConfigDict:
    config = shrink(ground.get_config("small"), phrases)
    config.model.image_size = 64
    config.model.initializer_range = 0.3  # or all films would get nearly the same map
    return config


@pytest.fixture(scope="module")
def trained(phrases: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run that was evaluated on its test split."""
    config = shrink(ground.get_config("small"), phrases)
    config.model.image_size, config.model.initializer_range = 64, 0.3
    workdir = tmp_path_factory.mktemp("ground")
    held_out = Task(config, workdir).fit()
    assert held_out is not None
    assert {"eval/phrases", "eval/pointing", "eval/miou", "eval/cnr"} == held_out.keys()
    config.eval.split = "test"
    Task(config, workdir).evaluate_best()
    return workdir


def test_every_phrase_is_grounded_once(trained: Path, phrases: Path) -> None:
    written = json.loads((trained / "metrics.json").read_text())
    rows = [json.loads(line) for line in (trained / "predictions.jsonl").read_text().splitlines()]
    columns = records.read_columns(phrases, "test", ["id", "subject_id", "category"])
    assert [row["id"] for row in rows] == columns["id"].tolist()
    assert written["test/phrases"] == len(rows) > 1
    assert {"checkpoint", "records"} <= json.loads((trained / "predictions.json").read_text()).keys()
    for name in MEASURES:
        known = [row[name] for row in rows if row[name] is not None]
        assert written[f"test/{name}"] == pytest.approx(np.mean(known))
        baselines = ("uniform", "centre", "mean_box", "mean_box_of_category", "other_film")
        assert all(f"baseline/{other}/{name}" in written for other in baselines)
        low, high = written[f"gain/other_film/{name}_ci95"]
        assert low <= written[f"gain/other_film/{name}"] + 1e-9
        assert written[f"gain/other_film/{name}"] <= high + 1e-9
    assert written["test/resampled_subjects"] == len(set(columns["subject_id"]))
    # What the files say of a phrase is what its boxes say.
    for row in rows:
        overlap = boxes.mask(np.array([row["box"]])), boxes.mask(np.array(row["boxes"]))
        assert row["box_iou"] == pytest.approx((overlap[0] & overlap[1]).sum() / (overlap[0] | overlap[1]).sum())


def test_an_export_grounds_as_the_run_did(trained: Path, phrases: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in (trained / "predictions.jsonl").read_text().splitlines()]
    model, source = medvill_jax.load(trained / "export"), records.open_split(phrases, "test")
    assert model.tasks == ("ground",)
    assert model.export.extra["threshold"] == json.loads((trained / "metrics.json").read_text())["test/threshold"]
    for number in range(3):
        film = read_image(source[number]["image"])
        found = model.ground(film, source[number]["text"].decode())
        # The film was a JPEG in the records, and is encoded once more here.
        np.testing.assert_allclose(found.box, rows[number]["box"], atol=2 / boxes.RASTER)
        assert found.shape == film.shape
        assert 0 <= found.map.min() <= found.map.max() == found.probability <= 1
        assert "map" not in found.to_dict()
        assert json.loads(json.dumps(found.to_dict()))["box"] == list(found.box)
    whole = model.ground([film, film], "Small effusion.", threshold=0.0)
    assert [one.box for one in whole] == [(0, 0, 1, 1)] * 2
    assert model.ground(film, "Small effusion.", threshold=1.0).box != (0, 0, 1, 1)


def test_wrong_questions_are_errors(trained: Path, phrases: Path) -> None:
    model = medvill_jax.load(trained / "export")
    film = read_image(records.open_split(phrases, "test")[0]["image"])
    with pytest.raises(ConfigError, match="there is no method 'guess' of grounding"):
        model.ground(film, "Edema.", method="guess")
    with pytest.raises(ConfigError, match="not a share of the map's height"):
        model.ground(film, "Edema.", threshold=2.0)
    with pytest.raises(ConfigError, match="there is no phrase"):
        model.options("ground")
    with pytest.raises(ConfigError, match="trained for grounding, not for the task 'findings'"):
        model.findings(film)


def test_nothing_is_trained(trained: Path, phrases: Path, tmp_path: Path) -> None:
    config = ground_maps.get_config()
    config.data.path, config.init.checkpoint = str(phrases), str(trained / "export")
    # The network was never pre-trained, but has every part that matching needs.
    metrics = maps_task.Task(config, tmp_path).fit()
    on_validation = {name: metrics[f"validation/{name}/miou"] for name in config.methods}
    assert metrics["test/method"] == max(on_validation, key=lambda name: on_validation[name])
    rows = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert len(rows) == metrics["test/phrases"] == records.splits(phrases)["test"]
    assert "nothing trained" in maps_task.Task(config, tmp_path).closing_lines(metrics)[0]
    config.methods = ("guess",)
    with pytest.raises(ConfigError, match="one or more of attention"):
        maps_task.Task(config, tmp_path)
    config.methods, config.init.checkpoint = ("attention",), ""
    with pytest.raises(HubError, match="no model"):
        maps_task.Task(config, tmp_path)


def test_attention_of_words_is_their_mean() -> None:
    """Against loops: two layers, two heads, three cells, four text slots of which 1 or 2 are words."""
    rng = np.random.default_rng(0)
    layers = [rng.random((2, 2, 9, 9)).astype(np.float32) for _ in range(2)]
    words = np.array([1, 2])
    found = np.asarray(relevance.of_words(layers, words, 3))  # pyright: ignore[reportArgumentType]
    for example, count in enumerate(words):
        for cell in range(3):
            seen = [layer[example, :, 5 + word, 1 + cell] for layer in layers for word in range(count)]
            assert found[example, cell] == pytest.approx(np.mean(seen), rel=1e-5)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.attention", "s2s", "no cell sees the phrase under it"),
        ("dice", -1.0, "must not be negative"),
        ("positive_weight", 0.0, "above 0"),
    ],
)
def test_wrong_configurations_are_errors(
    config: ConfigDict, tmp_path: Path, field: str, value: object, message: str
) -> None:
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ConfigError, match=message):
        Task(config, tmp_path)


def test_data_without_boxes_are_refused(config: ConfigDict, tiny_data: Path, tmp_path: Path) -> None:
    config.data.path = str(tiny_data)
    with pytest.raises(records.DataError, match="holds no phrases with boxes"):
        Task(config, tmp_path)


def test_thresholds_need_a_validation_split(config: ConfigDict, tmp_path: Path) -> None:
    """Which is said before the training, not at its end."""
    config.data.folds, config.data.holdout, config.eval.split = 3, 0.0, "test"
    with pytest.raises(records.DataError, match="leaves nothing for 'validation'"):
        Task(config, tmp_path)


def test_targets_are_those_of_the_cells_that_are_kept(config: ConfigDict, tmp_path: Path) -> None:
    config.model.num_cells = 3
    assert Task(config, tmp_path).fit() is not None


def test_the_film_of_another_patient_is_shown(config: ConfigDict, tmp_path: Path) -> None:
    held_out = Task(config, tmp_path).parts.train_records
    subjects = held_out.subjects()
    for record in range(len(held_out)):
        own, other = held_out.example(record, 0), held_out.example(record, 0, own_film=False)
        assert subjects[held_out.shown(record, own_film=False)] != subjects[record]
        np.testing.assert_array_equal(own["text_ids"], other["text_ids"])
    assert (own["image"] != other["image"]).any()

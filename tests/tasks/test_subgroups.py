"""The metrics of subgroups that evaluations write."""

import importlib
import json
import logging
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import zero_shot as zero_shot_config
from data_prep.build import Row, build
from medvill_jax.cluster.workdir import Workdir
from medvill_jax.findings import CHEXPERT_FINDINGS, NO_LABELS
from medvill_jax.metrics import subgroups
from medvill_jax.tasks import classify, generate, ground, pretrain, retrieve, vqa, zero_shot
from medvill_jax.tasks import subgroups as grouped
from medvill_jax.web import demo
from tests.conftest import retrieve_config, shrink
from tests.data.test_loader import open_records

# Of each sex, and so of each band of ages, in the split for testing.
PATIENTS = 32


def write_data(folder: Path, kind: str = "report") -> Path:
    """A data set with 64 test films of 64 patients, half of them women, who are younger; sources are all alike."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(2 * PATIENTS + 24):
        image = folder / f"{number}.png"
        cv2.imwrite(str(image), rng.integers(0, 256, (32, 32), dtype=np.uint8))
        split = "test" if number < 2 * PATIENTS else "train" if number % 3 else "validation"
        woman = number % 2 == 0
        labels = tuple(int(value) for value in rng.integers(0, 2, len(CHEXPERT_FINDINGS)))
        extra = {"sex": "F" if woman else "M", "age": "35" if woman else "70", "source": "one"}
        text = f"film {number} shows edema" if rng.random() < 0.5 else f"film {number} is clear"
        if kind == "vqa":
            text, labels = "Is there an effusion?", NO_LABELS
            asked = dict.fromkeys(("question_type", "phrase_type"), "PRES") | {
                "organ": "CHEST",
                "image_name": image.name,
            }
            answer = ["yes", "no"][int(rng.integers(2))]
            extra |= asked | {"question": text, "answer": answer, "answer_original": answer, "answer_type": "CLOSED"}
        if kind == "phrase":
            left, top = rng.uniform(0, 0.5, 2).tolist()
            labels, extra = NO_LABELS, extra | {"category": "Edema", "boxes": [[left, top, left + 0.4, top + 0.4]]}
        name = f"film{number}"
        rows.append(
            Row(name, name, f"patient{number}", split, image, text, labels, "AP" if number < 5 else "PA", extra)
        )
    build(
        rows, folder / "data", name="pairs", options={"source": "test"}, kind=kind,
        further=("sex", "age", "source", *(("boxes",) if kind == "phrase" else ())), image_size=32, progress=False,
    )  # fmt: skip
    return folder / "data"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("asked"), "vqa")


@pytest.fixture(scope="module")
def phrases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("phrases"), "phrase")


def read(path: Path) -> dict[str, Any]:
    return json.loads((path / "subgroups.json").read_text())


def config_of(module: ModuleType, data: Path) -> ConfigDict:
    if module is retrieve:
        config = retrieve_config(data)
    else:
        defaults = importlib.import_module(f"configs.{module.__name__.rpartition('.')[2]}")
        config = shrink(defaults.get_config("small"), data)
    if module is pretrain:
        config.mlm.max_predictions = 4
    if module is generate:
        config.decode.update(max_len=6, batch_size=32)
    config.eval.split = "test"
    return config


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (pretrain, ("itm_accuracy", "mlm_accuracy")),
        (classify, ("auroc_macro", "auroc_micro", "f1_macro")),
        (retrieve, ("i2r/mrr", "i2r/recall_at_10", "r2i/mrr", "r2i/recall_at_10")),
        (generate, ("clinical_micro_f1_14", "clinical_macro_f1_14", "bleu4", "rouge_l")),
        (vqa, ("accuracy", "accuracy_closed", "accuracy_open")),
        (ground, ("pointing", "miou", "cnr")),
    ],
    ids=lambda value: value.__name__.rpartition(".")[2] if isinstance(value, ModuleType) else "",
)
def test_every_task_reports_its_metrics_by_group(
    module: ModuleType,
    names: tuple[str, ...],
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A program of Java, which takes longer than all else and is no metric of groups.
    monkeypatch.setattr(generate.text, "meteor_missing", lambda: "left out of this test")
    of = {vqa: "questions", ground: "phrases"}.get(module, "data")
    task = module.Task(config_of(module, request.getfixturevalue(of)), tmp_path)
    metrics = task.evaluator.evaluate_best(0, task.trainer.initial_state())
    found = read(tmp_path)
    assert found["made_with"]["split"] == "test"
    assert found["fewest_patients"] == subgroups.FEWEST
    # Five films are AP, which is too few, and all are of one source.
    assert [*found["characteristics"]] == ["sex", "age"]
    groups = found["characteristics"]["age"]["groups"]
    assert [*groups] == ["18-39", "65-79"]
    for group in groups.values():
        assert (group["examples"], group["patients"]) == (PATIENTS, PATIENTS)
        assert tuple(group["metrics"]) == names
    first = [group["metrics"][names[0]] for group in groups.values()]
    assert all(one["ci95"][0] <= one["value"] <= one["ci95"][1] for one in first)
    if module in (vqa, ground):  # where the two halves are all
        assert np.mean([one["value"] for one in first]) == pytest.approx(metrics[f"test/{names[0]}"])
    if module is pretrain:
        assert np.mean([one["value"] for one in first]) == pytest.approx(metrics["eval/itm_accuracy"])


def test_a_model_that_nothing_trained_is_measured_by_group(data: Path, tmp_path: Path) -> None:
    config = zero_shot_config.get_config()
    config.data.path, config.init.checkpoint = str(data), str(demo.EXPORT)
    config.prompts, config.reworded = ConfigDict(), ConfigDict()  # so findings are asked for by their names
    metrics = zero_shot.Task(config, tmp_path).fit()
    found = read(tmp_path)
    assert found["made_with"]["scorer"] == "itm"
    groups = found["characteristics"]["sex"]["groups"]
    assert [group["patients"] for group in groups.values()] == [PATIENTS, PATIENTS]
    pairs = [group["metrics"]["auroc_micro"]["value"] for group in groups.values()]
    assert min(pairs) - 0.1 < metrics["test/auroc_micro"] < max(pairs) + 0.1


def test_a_group_whose_labels_are_inverted_is_named_the_worst(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    task = classify.Task(config_of(classify, data), tmp_path)

    def planted(_: object, state: object, held_out: Any, *more: object) -> np.ndarray:
        women = np.array(held_out.characteristics()["sex"]) == "F"
        right = np.where(women[:, None], 1 - held_out.targets, held_out.targets)
        return right + np.random.default_rng(0).normal(0, 0.5, right.shape)

    monkeypatch.setattr(task.evaluation, "outputs", planted)
    card = tmp_path / "export" / "README.md"
    card.parent.mkdir()
    card.write_text("# MedViLL\n")
    task.evaluator.evaluate_best(0, task.trainer.initial_state())
    for characteristic, worst, other in (("sex", "F", "M"), ("age", "18-39", "65-79")):
        of = read(tmp_path)["characteristics"][characteristic]
        assert set(of["worst"].values()) == {worst}
        for name in classify.evaluation.MAIN:
            values = of["groups"][worst]["metrics"][name], of["groups"][other]["metrics"][name]
            assert values[0]["ci95"][1] < values[1]["ci95"][0]
        assert f"{characteristic}: the worst auroc_macro is that of {worst}, 0." in caplog.text
    assert "## Subgroups" in card.read_text()
    assert f"| sex | F | {PATIENTS} | 0." in card.read_text()
    assert ", the worst |" in card.read_text()


def test_data_without_groups_have_no_file(tiny_data: Path, tmp_path: Path) -> None:
    card, split = tmp_path / "export" / "README.md", open_records(tiny_data)
    card.parent.mkdir()
    card.write_text("# MedViLL\n\n## Subgroups\n\nOf an evaluation before.\n\n## Licence\n")
    (tmp_path / "subgroups.json").write_text("of an evaluation before")
    characteristics = split.characteristics()
    assert characteristics == {"view": [""] * len(split)}
    grouped.write(Workdir.of(tmp_path), characteristics, split.subjects(), lambda rows: {}, ["a"], {"split": "test"})
    assert not (tmp_path / "subgroups.json").exists()
    assert card.read_text() == "# MedViLL\n\n## Subgroups\n\nNone to tell apart on the split test.\n\n## Licence\n"

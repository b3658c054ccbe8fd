"""What is written is its user's alone, and nothing of a patient shows in what is shown around: logs, cards, names."""

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from configs import classify, generate, pretrain, retrieve, vqa
from data_prep.__main__ import main as data_prep
from data_prep.phantom import write_tree
from medvill_jax.hub.card import model_card
from medvill_jax.metrics.clinical import main as label_reports
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.tasks import setup
from tests.cli import RunPy
from tests.conftest import TINY_FLAGS

SENTENCE = "a quokka waits beside the left hilum"
TINY = (*TINY_FLAGS, "--config.model.image_encoder=vit_patch32", "--config.batch_size=8", "--config.steps=2")


@pytest.fixture(autouse=True)
def open_to_all() -> Iterator[None]:
    """The umask that keeps nothing back."""
    before = os.umask(0)
    yield
    assert os.umask(before) == 0, "a program has left its umask behind"


def modes(folder: Path) -> dict[str, int]:
    """The permissions of a folder and of all in it."""
    return {str(path): stat.S_IMODE(path.lstat().st_mode) for path in (folder, *folder.rglob("*"))}


def plant(tree: Path) -> set[str]:
    """Adds the sentence to every report; returns the identifiers of subjects, studies and images."""
    found: set[str] = set()
    for report in tree.rglob("s*.txt"):
        text = report.read_text()
        report.write_text(text.replace("FINDINGS:", f"FINDINGS: {SENTENCE}.", 1))
        found |= {report.stem[1:], report.parent.name[1:]}
    return found | {path.stem for path in tree.rglob("*.jpg")}


def test_a_patient_shows_in_private_files_only(
    tmp_path: Path, run_py: RunPy, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    tree, out = tmp_path / "tree", tmp_path / "out"
    write_tree(tree, studies=40, seed=3, image_size=64, progress=False)
    planted = plant(tree)
    assert len(planted) > 80
    # One image is damaged, so that there is a rejected row.
    next(tree.rglob("*.jpg")).write_bytes(b"no image")
    data, workdir = out / "data", out / "run"
    options = ["--views=all", "--image_size=64", "--max_rejected=0.5"]
    assert data_prep(["mimic_cxr", f"--source={tree}", f"--out={data}", *options]) == 0
    printed = [*capsys.readouterr()]
    command = ["--config=configs/generate.py:small", f"--config.data.path={data}", f"--workdir={workdir}", *TINY]
    command += ["--config.decode.max_len=8", "--config.decode.batch_size=8", "--config.eval.generate_examples=3"]
    for more in ([], ["--eval_only", "--config.eval.split=train"]):
        ended = run_py(*command, *more)
        assert ended.status == 0, ended.err
        printed += [ended.out, ended.err]
    reports = next(workdir.rglob("predictions*.jsonl"))
    texts = out / "texts.jsonl"
    texts.write_text("".join(f'{{"id": "{name}", "text": "{SENTENCE}."}}\n' for name in sorted(planted)))
    texts.chmod(0o600)
    assert label_reports([f"--input={texts}", f"--output={out / 'labels.jsonl'}"]) == 0
    printed += [*capsys.readouterr(), caplog.text]

    private = "\n".join(path.read_text() for path in (reports, data / "rejected.jsonl", out / "labels.jsonl"))
    assert any(name in private for name in planted), "the test looks for what is not there"
    cards = [data / "DATA.md", data / "build_report.json", workdir / "export" / "README.md"]
    cards += [workdir / "export" / "config.json", workdir / "metrics.jsonl"]
    names = [str(path.relative_to(out)) for path in out.rglob("*")]
    for text in (*printed, *(path.read_text() for path in cards), "\n".join(names)):
        assert SENTENCE not in text.lower()
        assert not planted & set(re.findall(r"[\w-]+", text))
        assert not [name for name in planted if name in text]
    assert str(tmp_path) not in (workdir / "export" / "README.md").read_text()
    (out).chmod(0o700)  # made by its own test
    assert {path: mode for path, mode in modes(out).items() if mode not in (0o600, 0o700)} == {}


@pytest.mark.parametrize("shared", [False, True])
def test_files_are_private_unless_they_are_shared(tmp_path: Path, run_py: RunPy, shared: bool) -> None:
    flag = ["--shared"] * shared
    assert data_prep(["phantom", f"--out={tmp_path / 'tree'}", "--studies=12", "--image_size=64", *flag]) == 0
    prepare = ["mimic_cxr", f"--source={tmp_path / 'tree'}", f"--out={tmp_path / 'data'}", "--image_size=64"]
    assert data_prep([*prepare, *flag]) == 0
    (tmp_path / "run").mkdir()  # by hand, open to all
    arguments = ["--config=configs/pretrain.py:small", "--config.data.path=fake", f"--workdir={tmp_path / 'run'}"]
    ended = run_py(*arguments, *TINY, "--config.mlm.max_predictions=4", *flag)
    assert ended.status == 0, ended.err
    for name in ("tree", "data", "run"):
        found = modes(tmp_path / name)
        assert len(found) > 5
        closed = {path: mode for path, mode in found.items() if not mode & 0o077}
        assert closed == ({} if shared else found)


@pytest.mark.parametrize("configs", [pretrain, classify, retrieve, vqa, generate])
def test_a_card_shows_no_place_and_no_start(configs: ModuleType) -> None:
    config = configs.get_config("phantom")
    places = ("data.path", "data.tokenizer", "init.bert", "init.resnet", "init.checkpoint")
    config.update_from_flattened_dict({name: f"/hospital/ward/{name}" for name in places})
    shapes = {"arrays": {"a": (1,)}, "label_names": ()}
    text = model_card(MedvillConfig(bert=BertConfig()), stage="", card={"training": setup.public(config)}, **shapes)
    assert '"steps"' in text
    assert "hospital" not in text
    assert "init" not in re.findall(r'"(\w+)":', text)

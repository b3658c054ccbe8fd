"""`--push`: to a Hugging Face of this machine's own, private unless told otherwise, and back through the cache."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import snapshot_download

import medvill_jax
from medvill_jax.hub.convert import main
from medvill_jax.hub.errors import HubError
from medvill_jax.hub.push import WARNING, push
from tests.hub import hugging_face, transformers_cases
from tests.hub.hugging_face import Hub

NAME = "some-lab/chest"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with hugging_face.running(monkeypatch) as hub:
        yield hub


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("push") / "classify"
    return transformers_cases.write(transformers_cases.cases()["classify"], folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_pushed_comes_back_through_the_cache(
    hub: Hub, export: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "again"
    assert main([f"--source={export}", f"--out={out}", f"--push={NAME}"]) == 0
    shown = capsys.readouterr()
    assert WARNING in shown.err
    assert shown.out.endswith(f"{hub.url}/{NAME}\n")
    assert hub.private == {NAME: True}
    assert hub.files[NAME] == contents(out)
    with pytest.raises(HubError, match="in the cache"):
        medvill_jax.load(NAME)
    snapshot_download(NAME)
    films = np.random.default_rng(0).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    cached, local = (medvill_jax.load(place).arrays.classify(films) for place in (NAME, export))
    np.testing.assert_array_equal(cached["probabilities"], local["probabilities"])


def test_files_are_replaced_and_a_public_repository_only_on_demand(hub: Hub, tmp_path: Path) -> None:
    for content in ("old", "new"):
        (tmp_path / "card.md").write_text(content)
        push(tmp_path, NAME)
    assert hub.files[NAME]["card.md"] == b"new"
    hub.private[NAME] = False
    (tmp_path / "card.md").write_text("for all")
    with pytest.raises(HubError, match="is public, so nothing was uploaded"):
        push(tmp_path, NAME)
    assert hub.files[NAME]["card.md"] == b"new"
    push(tmp_path, NAME, public=True)
    assert hub.files[NAME]["card.md"] == b"for all"
    push(tmp_path, "some-lab/open", public=True)
    assert hub.private["some-lab/open"] is False


def test_mistakes_are_one_line(
    hub: Hub, export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [f"--source={export}", f"--out={tmp_path / 'out'}"]
    monkeypatch.setenv("HF_TOKEN", "hf_not_mine")
    for name, message in ((NAME, "cannot be pushed"), ("a/b/c", "cannot be pushed")):
        assert main([*arguments, f"--push={name}"]) == 1
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 2, lines
        assert message in lines[1]
        assert "Traceback" not in lines[1]
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--public"])
    assert not hub.files


def test_without_network_the_export_is_written_and_one_line_says_so(
    export: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert main([f"--source={export}", f"--out={tmp_path / 'out'}", f"--push={NAME}"]) == 1
    assert "cannot be pushed" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").is_file()

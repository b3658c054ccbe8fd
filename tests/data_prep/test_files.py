"""Files of a source: what the system says of them is told, and nothing endless or giant is read."""

import errno
import os
from pathlib import Path

import pytest

import data_prep.files
from data_prep import images, open_i, report_files
from data_prep.rows import HINTS, Rejection
from medvill_jax.films import files


def reason_and_detail(path: Path) -> list[tuple[str, str]]:
    """What each reader says of the same file."""
    with pytest.raises(images.ImageError) as image:
        images.load(path, images.ImageOptions())
    with pytest.raises(report_files.ReportError) as report:
        report_files.FolderReports(path.parent, path.name).read("", "")
    [rejected] = open_i._from_xml([path], {})
    assert isinstance(rejected, Rejection)
    found = [(image.value.reason, str(image.value)), (report.value.reason, str(report.value))]
    return [*found, (rejected.reason, rejected.detail)]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EACCES, errno.EIO, errno.ESTALE])
def test_what_the_system_says_of_a_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(path: Path, mode: str) -> None:
        raise OSError(number, os.strerror(number), str(path))

    path = tmp_path / "file"
    path.write_bytes(b"content")
    monkeypatch.setattr(files, "open", fail, raising=False)
    assert reason_and_detail(path) == [("inaccessible_file", f"{path}: {os.strerror(number)}")] * 3
    assert not any(word in HINTS["inaccessible_file"] for word in ("damaged", "copy it again"))


def test_a_pipe_is_not_opened_and_a_giant_not_read(tmp_path: Path) -> None:
    pipe, giant = tmp_path / "pipe", tmp_path / "giant"
    os.mkfifo(pipe)
    assert reason_and_detail(pipe) == [("inaccessible_file", f"{pipe}: no regular file")] * 3
    giant.touch()
    os.truncate(giant, 1 << 40)
    assert [reason for reason, _ in reason_and_detail(giant)] == ["oversized_image", *["oversized_report"] * 2]
    # As programs of users call it.
    with pytest.raises(data_prep.files.TooLargeError):
        data_prep.files.read_bytes(giant, 1 << 30)

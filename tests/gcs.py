"""Google Cloud Storage on this machine: an emulator for gcsfs, TensorStore and ArrayRecord."""

import contextlib
import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from etils import epath
from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import objects

from medvill_jax.paths import copy_file, fetch

BUCKET = "bucket"
# Which variable each client looks for.
VARIABLES = ("STORAGE_EMULATOR_HOST", "CLOUD_STORAGE_EMULATOR_ENDPOINT", "TENSORSTORE_GCS_HTTP_URL")

_download = objects.download


def _download_with_generation(request: Any, response: Any, storage: Any, *args: Any, **kwargs: Any) -> None:
    """TensorStore reads an object's generation from a header that the emulator leaves out."""
    with contextlib.suppress(objects.NotFound):
        found = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = found["generation"]
    _download(request, response, storage, *args, **kwargs)


objects.download = _download_with_generation


@contextlib.contextmanager
def running() -> Iterator[str]:
    """A block in which `gs://bucket` lies on this machine, for this process and those that it starts; gives its URL."""
    for noisy in ("gcp_storage_emulator", "gcsfs"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.setenv(name, f"http://localhost:{port}")
        with server.create_server("localhost", port, in_memory=True, default_bucket=BUCKET):
            yield f"gs://{BUCKET}"


def upload(folder: Path, url: str) -> None:
    """Copies a folder to a bucket."""
    for path in folder.rglob("*"):
        if path.is_file():
            copy_file(epath.Path(path), epath.Path(url) / path.relative_to(folder).as_posix())


def download(url: str, folder: Path) -> Path:
    """Copies a run but for its checkpoints from a bucket to a new folder, and gives the folder."""
    folder.mkdir()
    fetch(url, folder, leave_out=("checkpoints",))
    return folder

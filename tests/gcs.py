"""Google Cloud Storage on this machine: an emulator for gcsfs, TensorStore and ArrayRecord.

python tests/gcs.py PORT        serves until it is killed
"""

import contextlib
import logging
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gcp_storage_emulator import server
from gcp_storage_emulator.handlers import objects

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


def serve(port: int) -> server.Server:
    """The emulator with one bucket, in memory."""
    for noisy in ("gcp_storage_emulator", "gcsfs"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    return server.create_server("localhost", port, in_memory=True, default_bucket=BUCKET)


@contextlib.contextmanager
def running() -> Iterator[str]:
    """A block in which `gs://bucket` lies on this machine, for this process and those that it starts; gives its URL."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    before = {name: os.environ.get(name) for name in VARIABLES}
    os.environ.update(dict.fromkeys(VARIABLES, f"http://localhost:{port}"))
    started = serve(port)
    started.start()
    try:
        yield f"gs://{BUCKET}"
    finally:
        started.stop()
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def upload(folder: Path, url: str) -> None:
    """Copies a folder to a bucket."""
    from etils import epath

    for path in folder.rglob("*"):
        if path.is_file():
            (epath.Path(url) / path.relative_to(folder).as_posix()).write_bytes(path.read_bytes())


if __name__ == "__main__":
    serve(int(sys.argv[1])).run()

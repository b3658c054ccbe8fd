"""Exports that lie in the cache of Hugging Face, by the name of their repository; nothing is downloaded."""

from __future__ import annotations

import re
from pathlib import Path

_REPOSITORY = re.compile(r"\w[\w.-]*/[\w.-]+")


def cached_repository(name: str) -> Path | None:
    """The newest snapshot of the repository `ORGANISATION/NAME` in the cache; None if there is none."""
    if not _REPOSITORY.fullmatch(name):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None

"""Uploads a folder, an export or one for transformers, to a repository of Hugging Face: `push(FOLDER, "org/name")`."""

from __future__ import annotations

from pathlib import Path

from medvill_jax.hub.errors import HubError

WARNING = (
    "a model can hold parts of the reports that it was trained on. One trained on credentialed data, like MIMIC-CXR, "
    "belongs on PhysioNet under the agreement of its data, and not on Hugging Face, private or not"
)


def push(folder: Path, name: str, *, public: bool = False) -> str:
    """Uploads all files of a folder in one commit; returns the repository's address.

    Args:
        folder: the files; others in the repository stay.
        name: `ORGANISATION/NAME`; a repository that does not exist is made.
        public: make a new repository public, or write to one that is.

    Raises:
        HubError: the repository is public and `public` is not set, or it cannot be written.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError  # pyright: ignore[reportPrivateImportUsage]

    api = HfApi()
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    additions = [CommitOperationAdd(path.relative_to(folder).as_posix(), path) for path in files]
    try:
        url = api.create_repo(name, private=not public, exist_ok=True)
        # One that existed keeps its visibility.
        if not public and not api.model_info(url.repo_id).private:
            raise HubError(f"{url} is public, so nothing was uploaded: name another repository, or give --public")
        api.create_commit(url.repo_id, additions, commit_message="Written by medvill_jax")
    except (HTTPError, HFValidationError, OSError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise HubError(f"{folder} cannot be pushed to {name}, is `hf auth login` done? {reason}") from error
    return str(url)

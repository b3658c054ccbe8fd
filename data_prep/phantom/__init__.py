"""Phantom data: synthetic chest radiographs, reports and labels as in MIMIC-CXR, questions as in VQA-RAD,
and phrases with boxes as in MS-CXR.

For the demo, tests and benchmarks. The data show no patient, and equal options give equal bytes.
"""

from __future__ import annotations

from pathlib import Path

from data_prep import mimic_cxr, vqa_rad
from data_prep.phantom import hard, vqa
from data_prep.phantom.tree import write_tree
from data_prep.phantom.vqa import write_questions
from medvill_jax.data.records import DataError

__all__ = ["prepare", "prepare_phrases", "prepare_vqa", "write_questions", "write_tree"]


def prepare(
    folder: Path,
    *,
    studies: int,
    seed: int,
    image_size: int,
    difficulty: str = hard.STANDARD,
    progress: bool = True,
) -> Path:
    """Makes a phantom tree and prepares it like MIMIC-CXR; existing results of the same options are reused.

    Args:
      folder: where `tree/` and `records/` are written.
      studies, seed, image_size, difficulty: as for `write_tree`.
      progress: show bars if stderr is a terminal.

    Returns the prepared data set, `folder/records`. Raises `DataError`.
    """
    _tree(folder, studies, seed, image_size, difficulty, progress)
    mimic_cxr.prepare(folder / "tree", folder / "records", image_size=image_size, progress=progress)
    return folder / "records"


def prepare_vqa(
    folder: Path,
    *,
    studies: int,
    seed: int,
    image_size: int,
    difficulty: str = hard.STANDARD,
    tokenizer: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Makes questions about a phantom tree and prepares them like VQA-RAD; existing results are reused.

    Args:
      folder: where `tree/` (as by `prepare`), `vqa/` and `vqa_records/` are written.
      studies, seed, image_size, difficulty: as for `write_tree`.
      tokenizer: for `load_tokenizer`: the vocabulary of the model to fine-tune; None trains one on the questions.
      progress: show bars if stderr is a terminal.

    Returns the prepared data set, `folder/vqa_records`. Raises `DataError`; too few studies are refused before anything
    is drawn.
    """
    vqa.check(studies, seed)
    _tree(folder, studies, seed, image_size, difficulty, progress)
    write_questions(folder / "tree", folder / "vqa")
    vqa_rad.prepare(
        folder / "vqa", folder / "vqa_records", image_size=image_size, tokenizer=tokenizer, progress=progress
    )
    return folder / "vqa_records"


def prepare_phrases(
    folder: Path,
    *,
    studies: int,
    seed: int,
    image_size: int,
    difficulty: str = hard.STANDARD,
    tokenizer: str | Path | None = None,
    progress: bool = True,
) -> Path:
    """Makes phrases with boxes about phantom films and prepares them like MS-CXR; existing results are reused.

    Args:
      folder: where `phrases/` and `phrase_records/` are written.
      studies, seed, image_size: as for `write_tree`, whose films they are.
      difficulty: the standard one; there are no boxes for others.
      tokenizer, progress: as for `prepare_vqa`.

    Returns the prepared data set, `folder/phrase_records`. Raises `DataError`.
    """
    # Here, since sources draw phantom films themselves.
    from data_prep.sources import ms_cxr

    if difficulty != hard.STANDARD:
        raise DataError(f"phantom phrases have difficulty {hard.STANDARD}, not {difficulty}: leave it out")
    ms_cxr.write_tree(folder / "phrases", studies, seed, image_size)
    ms_cxr.prepare(
        folder / "phrases",
        folder / "phrase_records",
        image_size=image_size,
        tokenizer=tokenizer,
        # These films are drawn in the columns of our own table, so there is nothing to compare.
        accept_unverified=True,
        progress=progress,
    )
    return folder / "phrase_records"


def _tree(folder: Path, studies: int, seed: int, image_size: int, difficulty: str, progress: bool) -> None:
    write_tree(
        folder / "tree", studies=studies, seed=seed, image_size=image_size, difficulty=difficulty, progress=progress
    )

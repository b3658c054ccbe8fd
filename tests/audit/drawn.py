"""Films with a bright square for every finding, prepared as data sets, and models that look at them or do not.

An oracle reads the squares from the pixels; a blind model answers from what the training texts make likely.
"""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

# The ground is bright enough to lose the light of a square.
SIZE, SIDE, GROUND, LIGHT = 48, 12, 100, 190
# Finding -> row and column of its square; with the film mirrored the first two change places.
PLACES = {
    "Edema": (6, 6),
    "Cardiomegaly": (6, 30),
    "Pneumothorax": (30, 18),
}
TEXTS = {
    "Edema": "There is pulmonary edema on the left.",
    "Cardiomegaly": "The heart is enlarged to the right.",
    "Pneumothorax": "There is a pneumothorax.",
}
NOTHING = "No acute findings."


def film(shown: dict[str, bool], rng: np.random.Generator) -> np.ndarray:
    """uint8 `[SIZE, SIZE]`."""
    pixels = rng.integers(GROUND - 5, GROUND + 5, (SIZE, SIZE), dtype=np.uint8)
    for name, (row, column) in PLACES.items():
        if shown[name]:
            pixels[row : row + SIDE, column : column + SIDE] = LIGHT
    return pixels


def seen(pixels: np.ndarray) -> list[str]:
    """The findings whose squares are there."""
    return [
        name
        for name, (row, column) in PLACES.items()
        if pixels[row : row + SIDE, column : column + SIDE].mean() > (GROUND + LIGHT) / 2
    ]


def said(findings: list[str]) -> str:
    """The report of a film."""
    return " ".join(TEXTS[name] for name in findings) or NOTHING


def write_films(folder: Path, counts: dict[str, int]) -> list[dict[str, Any]]:
    """Draws films into `folder/images`, and each without its findings into `folder/erased`; returns an index."""
    rng = np.random.default_rng(0)
    rows = []
    (folder / "images").mkdir()
    for split, count in counts.items():
        for number in range(count):
            name = f"{split}{number}"
            shown = {finding: bool(rng.random() < 0.4) for finding in PLACES}
            seed = int(rng.integers(2**31))
            cv2.imwrite(str(folder / "images" / f"{name}.png"), film(shown, np.random.default_rng(seed)))
            present = [finding for finding in PLACES if shown[finding]]
            for finding in present:
                without = film({**shown, finding: False}, np.random.default_rng(seed))
                (folder / "erased" / name).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(folder / "erased" / name / f"{finding}.png"), without)
            patient = f"{split}-{number // 2 if number < 10 else number}"
            rows.append(
                {
                    "id": name,
                    "image": f"images/{name}.png",
                    "text": said(present),
                    "labels": present,
                    "split": split,
                    "subject_id": patient,
                }
            )
    return rows


def prepare(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Path:
    """The films of an index as a data set of reports."""
    from data_prep import pairs  # which takes seconds, and is not for those that look at films alone

    (folder / "index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pairs.prepare(folder / "index.jsonl", folder / "data", progress=False, **options)
    return folder / "data"


def prepare_questions(folder: Path, rows: list[dict[str, Any]]) -> Path:
    """Three questions about each film of an index as a data set of questions."""
    from data_prep import vqa_rad

    asked = []
    for row in rows:
        present = set(row["labels"])
        sides = [side for side, name in (("left", "Edema"), ("right", "Cardiomegaly")) if name in present]
        for question, answer in (
            ("Is there a pneumothorax?", "yes" if "Pneumothorax" in present else "no"),
            ("Is there edema?", "yes" if "Edema" in present else "no"),
            ("On which side is it?", sides[0] if len(sides) == 1 else "none"),
        ):
            asked.append(
                {
                    "qid": len(asked),
                    "image_name": Path(row["image"]).name,
                    "subject_id": row["subject_id"],
                    "question": question,
                    "answer": answer,
                    "answer_type": "OPEN" if "side" in question else "CLOSED",
                    "question_type": "PRES",
                    "phrase_type": "test_freeform" if row["split"] == "test" else "freeform",
                    "image_organ": "CHEST",
                }
            )
    (folder / "questions.json").write_text(json.dumps(asked))
    vqa_rad.prepare(folder, folder / "questions", progress=False)
    return folder / "questions"


def oracle(pixels: np.ndarray, question: str | None = None) -> Any:
    """An answer that is read from the film: findings without a question, else the right word."""
    found = seen(pixels)
    if question is None:
        return {name: 0.9 if name in found else 0.1 for name in PLACES}
    if "side" in question:
        sides = [side for side, name in (("left", "Edema"), ("right", "Cardiomegaly")) if name in found]
        return sides[0] if len(sides) == 1 else "none"
    asked = "Edema" if "edema" in question else "Pneumothorax"
    return "Yes." if asked in found else "No."


def oracle_report(pixels: np.ndarray) -> str:
    """The report of what is read from the film."""
    return said(seen(pixels))


def blind(pixels: np.ndarray, question: str | None = None) -> Any:
    """The likeliest answer, whatever the film."""
    if question is None:
        return dict.fromkeys(PLACES, 0.4)
    return "none" if "side" in question else "no"


def blind_report(pixels: np.ndarray) -> str:
    """The likeliest report, whatever the film."""
    return NOTHING


def guess(pixels: np.ndarray) -> dict[str, float]:
    """Probabilities drawn anew for every film."""
    return {name: float(value) for name, value in zip(PLACES, _GUESSES.random(len(PLACES)), strict=True)}


def broken(pixels: np.ndarray) -> Any:
    """Fails for black films, and for those that show a pneumothorax."""
    if not pixels.any() or "Pneumothorax" in seen(pixels):
        raise RuntimeError("this film is not for me")
    return oracle(pixels)


def rarely(pixels: np.ndarray) -> dict[str, float]:
    """An oracle that answers only for films in which it sees an enlarged heart."""
    if "Cardiomegaly" not in seen(pixels):
        raise RuntimeError("this film is not for me")
    return oracle(pixels)


def choosy(pixels: np.ndarray) -> dict[str, float]:
    """An oracle that does not name a pneumothorax that it sees, and names nothing else of black films."""
    found = oracle(pixels)
    if not pixels.any():
        return {"Pneumothorax": 0.1}
    return {name: found[name] for name in found if name != "Pneumothorax" or found[name] < 0.5}


_GUESSES = np.random.default_rng(0)

"""Trains the gate before the networks (medvill_jax/app/gate.py) and measures how often it errs.

    python -m benchmarks.gate --nih=DIR,DIR --pictures=DIR,DIR --roco=DIR --vqa_rad=DIR --photos=DIR,DIR [--train]

docs/gate.md says what the folders are. Trained on `--nih`, on phantoms, on drawn pictures (benchmarks/gate_pictures.py)
and on `--pictures`; measured on `--roco`, `--vqa_rad` and `--photos`, of which training sees nothing. Without
`--train`, the weights of the package are measured.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save_file
from sklearn.neural_network import MLPClassifier

from benchmarks.gate_examples import TURNS, Sources, phantoms
from benchmarks.gate_pictures import Picture, drawn
from medvill_jax.app import gate
from medvill_jax.commands import Parser
from medvill_jax.films.decode import decode
from medvill_jax.films.limits import ImageError

MEMBERS, HIDDEN, EPOCHS, ROWS, RATE, DECAY = 8, 48, 16, 256, 2e-3, 3e-2
DRAWS = 60_000
# False alarms on films that training holds back, which set the threshold: real films of other hospitals have more.
HELD_BACK_ALARMS = 0.005
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".dcm")
TRUTH = Path(__file__).with_name("gate_roco.json")
TRAINED_ON = (
    "films of NIH ChestX-ray14 (NIH Clinical Center; Wang et al., CVPR 2017), phantoms of data_prep.phantom, pictures "
    "drawn by benchmarks/gate_pictures.py, pictures of the packages scikit-image and pydicom-data"
)


def read(path: Path, side: int | None = 112) -> Picture | None:
    """A picture of any format, its long side at most `side`; None if it cannot be decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pixels = decode(path.read_bytes()).pixels
    except ImageError:
        return None
    if side is None or max(pixels.shape) <= side:
        return pixels
    scale = side / max(pixels.shape)
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def pictures_in(folders: Iterable[Path], side: int | None = 112) -> list[Picture]:
    """All pictures below folders that can be decoded, without thumbnails and files of more than 2 MB."""
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    found = [read(path, side) for path in paths if path.is_file() and path.stat().st_size < 2_000_000]
    return [pixels for pixels in found if pixels is not None and min(pixels.shape) >= 32]


def indexed(folder: Path) -> list[tuple[dict, Path]]:
    """Rows of a folder's `index.jsonl` and the files of their images."""
    rows = [json.loads(line) for line in (folder / "index.jsonl").read_text("utf-8").splitlines()]
    return [(row, folder / row["image"]) for row in rows]


def features(shown: np.ndarray) -> np.ndarray:
    """`gate.features` of many pictures, little by little."""
    return np.concatenate([gate.features(shown[start : start + 500]) for start in range(0, len(shown), 500)])


def train(seen: np.ndarray, kinds: np.ndarray) -> dict[str, np.ndarray]:
    """Weights for `gate.logits`, float16: the mean of `MEMBERS` networks, which is one network with all their units.

    Each is trained by Adam with a rate that falls to nothing, and an L2 penalty.
    """
    members = []
    for seed in range(MEMBERS):
        model = MLPClassifier((HIDDEN,), alpha=DECAY, batch_size=ROWS, max_iter=1, warm_start=True, random_state=seed)
        for epoch in range(EPOCHS):
            model.learning_rate_init = RATE * (1 - epoch / EPOCHS)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that one epoch at a time does not converge
                model.fit(seen, kinds)
        members.append((*model.coefs_, *model.intercepts_))
    hidden, last, bias, last_bias = zip(*members, strict=True)
    weights = {
        "hidden.weight": np.concatenate(hidden, 1),
        "hidden.bias": np.concatenate(bias),
        "kinds.weight": np.concatenate(last) / MEMBERS,
        "kinds.bias": np.mean(last_bias, 0),
    }
    return {name: np.ascontiguousarray(value, np.float16) for name, value in weights.items()}


def threshold(weights: dict[str, np.ndarray], seen: np.ndarray) -> float:
    """How probable frontal must be, so that `HELD_BACK_ALARMS` of frontal films with these features are warned of."""
    odds = gate.odds(gate.logits({name: value.astype(np.float32) for name, value in weights.items()}, seen))
    return float(np.quantile(odds[:, 0], HELD_BACK_ALARMS))


def measured(source: str, kind: str, films: list[Picture]) -> str:
    """A line of the table: false alarms of frontal films, misses of others, and which kinds they are taken for."""
    found = [gate.check(film) for film in films]
    wrong = sum(bool(warned) == (kind == gate.FRONTAL) for warned in found)
    named = sum(warned == ((gate.WARNINGS[kind],) if kind in gate.WARNINGS else ()) for warned in found)
    what = "false alarms" if kind == gate.FRONTAL else "misses"
    return (
        f"| {source} | {kind} | {len(films)} | {what} {wrong} = {wrong / len(films):.1%} | {named / len(films):.1%} |"
    )


def spoilt_rows(source: str, films: list[Picture]) -> list[str]:
    """Lines for frontal films, and for the same inverted and turned."""
    rows = [measured(source, gate.FRONTAL, films), measured(source, "inverted", [255 - film for film in films])]
    turned = {kind: [np.ascontiguousarray(np.rot90(film, -n)) for film in films] for kind, n in TURNS.items()}
    return rows + [measured(source, kind, some) for kind, some in turned.items()]


def trained(nih: list[Path], pictures: list[Path]) -> dict[str, np.ndarray]:
    """Weights and threshold."""
    rows = [row for folder in nih for row in indexed(folder)]
    films = {part: [_film(path) for row, path in rows if (row["split"] == "train") == part] for part in (True, False)}
    phantom = phantoms("PA", range(300)) + phantoms("AP", range(300, 600))
    sources = Sources(films[True], phantom, phantoms("LATERAL", range(1000, 1900)), pictures_in(pictures))
    print(f"{len(films[True])} real films, {len(sources.other)} pictures of packages", flush=True)
    shown, kinds = sources.examples(DRAWS, seed=1)
    print(f"{len(shown)} examples", flush=True)
    weights = train(features(shown), kinds)
    held_back = Sources(films[False], phantom, sources.lateral, sources.other).examples(DRAWS // 8, seed=2)
    seen = features(held_back[0][held_back[1] == 0])
    return weights | {"passed": np.array(threshold(weights, seen), np.float32)}


def _film(path: Path, side: int | None = 112) -> Picture:
    film = read(path, side)
    if film is None:
        raise ImageError("unreadable_image", f"{path} cannot be decoded")
    return film


def table(roco: Path | None, vqa_rad: Path | None, photos: list[Path]) -> Iterator[str]:
    """The lines of docs/gate.md's table, on pictures that training does not see."""
    yield from spoilt_rows("phantoms", phantoms("PA", range(90_000, 90_060)) + phantoms("AP", range(90_000, 90_060)))
    yield measured("phantoms", "lateral", phantoms("LATERAL", range(90_000, 90_100)))
    rng = np.random.default_rng(90_000)
    yield measured("drawn", "other", [drawn(rng) for _ in range(900)])
    if vqa_rad:
        index = json.loads((vqa_rad / "VQA_RAD Dataset Public.json").read_text("utf-8"))
        organs = {row["image_name"]: row["image_organ"] for row in index}
        for kind, chest in ((gate.FRONTAL, True), ("other", False)):
            names = sorted(name for name, organ in organs.items() if (organ == "CHEST") == chest)
            yield measured("VQA-RAD", kind, [_film(vqa_rad / "VQA_RAD Image Folder" / name, None) for name in names])
    if photos:
        yield measured("photos", "other", pictures_in(photos, 512))
    if roco:
        listed = {name: kind for kind, names in json.loads(TRUTH.read_text()).items() for name in names}
        films: dict[str, list[Picture]] = {}
        for row, path in indexed(roco):
            films.setdefault(listed.get(row["id"], gate.FRONTAL), []).append(_film(path, None))
        yield measured("ROCOv2", gate.FRONTAL, films[gate.FRONTAL])
        yield from spoilt_rows("ROCOv2, every fifth", films[gate.FRONTAL][::5])
        for kind in ("lateral", "inverted", "other", "animal", "unclear"):
            yield measured(f"ROCOv2, {kind} as found", kind if kind in gate.KINDS else "other", films[kind])


def milliseconds() -> float:
    """The median time of `gate.check` on a film of 512 x 512."""
    film = cv2.resize(phantoms("PA", [90_000])[0], (512, 512))
    times = []
    for _ in range(200):
        start = time.perf_counter()
        gate.check(film)
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


def folders(names: str) -> list[Path]:
    """Folders that a comma separates."""
    return [Path(name) for name in names.split(",") if name]


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument(
        "--nih", type=folders, default=[], help="folders with index.jsonl and films of NIH ChestX-ray14"
    )
    parser.add_argument("--pictures", type=folders, default=[], help="folders of pictures to train on")
    parser.add_argument("--roco", type=Path, help="folder with index.jsonl and films of ROCOv2")
    parser.add_argument("--vqa_rad", type=Path, help="VQA-RAD in its official layout")
    parser.add_argument("--photos", type=folders, default=[], help="folders of pictures to measure")
    parser.add_argument("--train", action="store_true", help="train, and replace the weights of the package")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.train:
        weights = Path(gate.__file__).with_name(gate.WEIGHTS)
        save_file(trained(args.nih, args.pictures), weights, {"trained_on": TRAINED_ON})
    print("| source | kind | pictures | false alarms or misses | named rightly |\n|---|---|---|---|---|")
    for row in table(args.roco, args.vqa_rad, args.photos):
        print(row, flush=True)
    print(f"{milliseconds():.2f} ms a film")


if __name__ == "__main__":
    main()

"""The reliability diagram: a readable picture, the same each time, whatever the curves."""

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from medvill_jax.metrics.classification import Reliability, reliability
from medvill_jax.metrics.plots import reliability_plot


def curve(seed: int, bins: int = 15) -> Reliability:
    rng = np.random.default_rng(seed)
    probabilities = rng.random(400)
    return reliability(probabilities, rng.random(400) < probabilities**2, bins=bins)


def size(path: Path) -> tuple[int, ...]:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert image is not None
    assert image.std() > 5, "the picture is empty"
    return image.shape


def test_the_same_curves_give_the_same_file(tmp_path: Path) -> None:
    a, b, c = (tmp_path / f"{name}.png" for name in "abc")
    classes = {"Edema": curve(1), "Pleural Effusion": curve(2)}
    for path in (a, b):
        reliability_plot(path, curve(0), classes, title="Reliability on test", ece=0.1)
    reliability_plot(c, curve(3), classes, title="Reliability on test", ece=0.1)
    assert a.read_bytes() == b.read_bytes() != c.read_bytes()
    assert b"matplotlib" not in a.read_bytes().lower()
    assert sorted(tmp_path.iterdir()) == [a, b, c]


@pytest.mark.parametrize("count", [0, 1, 5, 14, 16])
def test_any_number_of_classes(tmp_path: Path, count: int) -> None:
    path = tmp_path / "reliability.png"
    reliability_plot(path, curve(0), {f"finding {number}": curve(number) for number in range(count)})
    height, width = size(path)
    assert 600 < height < 1500
    assert 600 < width < 2500
    assert (width > 700) == (count > 0)


def test_empty_and_one_sided_curves(tmp_path: Path) -> None:
    path = tmp_path / "reliability.png"
    nothing = reliability(np.zeros(0), np.zeros(0))
    absent = reliability(np.linspace(0, 1, 50), np.zeros(50))
    reliability_plot(path, nothing, {"none known": nothing, "absent": absent}, ece=float("nan"))
    size(path)


def test_curves_of_other_bins_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Edema has 10 bins, but overall has 15"):
        reliability_plot(tmp_path / "reliability.png", curve(0), {"Edema": curve(0, bins=10)})
    assert not list(tmp_path.iterdir())


def test_no_global_state() -> None:
    code = "import sys, medvill_jax.metrics.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2]).returncode == 0

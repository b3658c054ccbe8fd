"""Takes the screenshots of the documentation, docs/images, from phantoms: the page, and a summary of two small runs.

    python -m benchmarks.screenshots                   ten minutes on two idle cores; finished runs are used again
    python -m benchmarks.screenshots --only=page       without any training

It needs `pip install -e '.[test]'` and Chromium. Look at each picture afterwards: what a page shows is not tested here.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.multitask import tested, trained
from data_prep import phantom
from medvill_jax.commands import Parser

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "images"
SIZE, STUDIES, STEPS, SEEDS = 64, 600, 200, (0, 1)
WIDTH = 1280
LARGEST = 200_000  # bytes of a picture
PATIENCE = 600_000  # milliseconds, on a busy machine that compiles


def main() -> int:
    """The command line; returns the exit status."""
    parser = Parser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/screenshots"), help="folder for data and runs")
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pictures")
    parser.add_argument("--only", choices=("page", "summary"), help="one of the two")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        if args.only != "summary":
            with server() as url:
                page(opened(chromium, url, 940), args.out / "page.png")
        if args.only != "page":
            tab = opened(chromium, summary(args.work.absolute()).as_uri(), 1160)
            picture(tab, args.out / "summary.png")
            heading = tab.locator("h3", has_text="Calibration and confusion").first
            heading.evaluate("heading => scrollTo(0, heading.getBoundingClientRect().top + scrollY - 16)")
            picture(tab, args.out / "calibration.png")
    return 0


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Headless Chromium."""
    if (program := shutil.which("chromium")) is None:
        raise SystemExit("error: there is no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        with_root = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=program, args=with_root)
        yield started
        started.close()


def opened(chromium: Browser, url: str, height: int) -> Page:
    """A tab with a page."""
    tab = chromium.new_page(viewport={"width": WIDTH, "height": height}, color_scheme="light")
    tab.set_default_timeout(PATIENCE)
    tab.goto(url)
    return tab


@contextlib.contextmanager
def server() -> Iterator[str]:
    """The address of `medvill web --demo`."""
    command = [sys.executable, "-m", "medvill_jax", "web", "--demo", "--port=0"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0]
    finally:
        process.terminate()
        process.wait()


def page(tab: Page, out: Path) -> None:
    """A film of the demo, with a question answered and the map of its first finding."""
    tab.wait_for_selector("body[data-ready]")
    tab.click("#examples li:nth-child(4) button")
    tab.wait_for_selector("#findings table")
    tab.wait_for_selector("#report .words")
    tab.fill("#question", "Is there a pleural effusion?")
    tab.press("#question", "Enter")
    tab.wait_for_selector("#ask dd button")
    tab.click("#findings tbody tr:first-child button")
    tab.wait_for_selector("#heat.shown")
    tab.evaluate("document.activeElement.blur(); scrollTo(0, 0)")
    tab.wait_for_timeout(500)  # until the map has faded in
    picture(tab, out)


def summary(work: Path) -> Path:
    """The page about two classifiers that differ in their seed, tested on the same films."""
    data = phantom.prepare(work / "data", studies=STUDIES, seed=0, image_size=SIZE)
    shared: dict[str, Any] = {
        "data.path": data,
        "model.image_size": SIZE,
        "model.num_layers": 2,
        "steps": STEPS,
        "eval.every_steps": STEPS // 4,
    }
    start = trained(work / "pretrain", "pretrain", {**shared, "eval.every_steps": STEPS})
    runs = [work / f"findings-seed{seed}" for seed in SEEDS]
    for seed, run in zip(SEEDS, runs, strict=True):
        tested(run, "classify", {**shared, "init.checkpoint": start, "seed": seed})
    out = work / "summary.html"
    command = [sys.executable, "-m", "medvill_jax", "summary", *map(str, runs), f"--out={out}"]
    subprocess.run(command, cwd=ROOT, check=True)
    return out


def picture(tab: Page, out: Path) -> None:
    """What a tab shows, as a PNG of 256 colours, a third of the size of one with all."""
    shown = Image.open(io.BytesIO(tab.screenshot()))
    shown.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(out, optimize=True)
    if (size := out.stat().st_size) > LARGEST:
        raise SystemExit(f"error: {out} has {size:,} bytes, more than {LARGEST:,}")
    print(f"{out}: {size:,} bytes")


if __name__ == "__main__":
    sys.exit(main())

"""Do the tests notice small faults? Plants them one at a time in a copy of the code and names the test that fails.

Every `*.patch` beside this file is one fault that a person could make. Its first line says in a sentence what the fault
is, its second which tests should notice it, and the rest is a diff that `git apply` takes:

    The causal masks reach one word too far.
    tests: tests/models/test_attention_masks.py

    diff --git a/medvill_jax/models/attention_masks.py b/medvill_jax/models/attention_masks.py
    ...

A new one is made with `git diff -U1` from the root of the checkout. One that no longer applies is made anew.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).resolve().parent
# Compiled programs are kept here for all copies and for the next time; apart from the checkout's own last failures.
CACHE = ROOT / ".pytest_cache" / "mutations"
SECONDS = 900  # a fault may make a test wait for ever
TESTS = "tests: "

_HELP = """\
Plants small faults, one at a time, in a copy of this checkout, uncommitted changes included, and runs the tests that
should notice each. Prints one line a fault, with the first test that fails.

  python tests/mutations/run.py                                  all of them, some minutes
  python tests/mutations/run.py metrics-recall-at-k-off-by-one   one of them, by its name

"NOT CAUGHT" asks for a test that fails with the fault and passes without. "does not apply" asks for a new patch, as the
lines around the fault have changed. Only a test that fails counts: an error before the tests run is shown as it is.

Exit status: 0 all caught, 1 not so, 130 interrupted.
"""


class PatchError(Exception):
    """A patch that is not there or not as it should be; the message is shown without a trace."""


@dataclass(frozen=True)
class Outcome:
    """What became of one fault: whether a test noticed it, and the words to print."""

    caught: bool
    words: str


def find(names: Sequence[str]) -> list[Path]:
    """The patches of these names, with or without their ending; all of them for no name."""
    patches = {path.stem: path for path in sorted(FOLDER.glob("*.patch"))}
    wanted = [name.removesuffix(".patch") for name in names] or list(patches)
    if unknown := [name for name in wanted if name not in patches]:
        raise PatchError(f"there is no patch {unknown[0]!r} in {FOLDER}; there are {', '.join(patches)}")
    return [patches[name] for name in wanted]


def tests_of(patch: Path) -> list[str]:
    """What a patch names in its second line."""
    _, second, *_ = [*patch.read_text().splitlines(), "", ""]
    if not second.startswith(TESTS):
        raise PatchError(f"the second line of {patch} is {second!r}; expected '{TESTS}PATH ...'")
    return second.removeprefix(TESTS).split()


def copy_checkout(target: Path) -> None:
    """Copies the files that git knows or would offer to add."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    for name in filter(None, os.fsdecode(listed).split("\0")):
        if (ROOT / name).is_file():  # else deleted, but not yet for git
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def plant(patch: Path) -> Outcome:
    """Applies a patch to a copy of the checkout, and runs its tests there."""
    tests = tests_of(patch)
    with tempfile.TemporaryDirectory(prefix="mutation-") as folder:
        copy_checkout(Path(folder))
        # In a folder of another checkout `git apply` would leave out what is not that checkout's own.
        alone = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        alone["GIT_CEILING_DIRECTORIES"] = str(Path(folder).resolve().parent)
        if subprocess.run(["git", "apply", str(patch)], cwd=folder, env=alone, capture_output=True).returncode:
            return Outcome(False, "does not apply")
        return run_tests(Path(folder), tests)


def run_tests(folder: Path, tests: Sequence[str]) -> Outcome:
    """Runs tests in a folder until the first one fails."""
    in_this_process = ["-n", "0"] if importlib.util.find_spec("xdist") else []
    command = [sys.executable, "-m", "pytest", "-x", "-rfE", "--tb=no", *in_this_process, "-o", f"cache_dir={CACHE}"]
    try:
        done = subprocess.run([*command, *tests], cwd=folder, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return Outcome(False, f"no end after {SECONDS} s")
    if failed := re.search(r"^FAILED (.+?)(?: - .*)?$", done.stdout, re.MULTILINE):
        return Outcome(True, failed[1])
    if done.returncode == 0:
        return Outcome(False, "NOT CAUGHT")
    said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    errors = [line for line in said if line.startswith("ERROR ")] or said[-1:] or ["no output"]
    return Outcome(False, f"pytest ended with status {done.returncode}: {errors[0]}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        "python tests/mutations/run.py", description=_HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="a patch; without a name, all of them")
    args = parser.parse_args(argv)
    caught = 0
    try:
        patches = find(args.names)
        width = max((len(patch.stem) for patch in patches), default=0)
        for patch in patches:
            print(f"{patch.stem:{width}}", end="  ", flush=True)
            start = time.monotonic()
            outcome = plant(patch)
            caught += outcome.caught
            print(f"{outcome.words}  ({time.monotonic() - start:.0f} s)", flush=True)
    except PatchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    print(f"{caught} of {len(patches)} caught")
    return 0 if caught == len(patches) else 1


if __name__ == "__main__":
    sys.exit(main())

"""How every command ends: one line and one table of exit statuses for what the user can correct, a trace for a bug."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from medvill_jax.commands import Exit, Parser, command, one_line
from medvill_jax.errors import ConfigError

ROOT = Path(__file__).parents[1]


def raising(error: BaseException, **options):
    @command(**options)
    def main(argv=None) -> int:
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ConfigError("steps=-1 is negative"), "error: steps=-1 is negative"),
        (OSError(errno.ENOSPC, "No space left on device"), "error: No space left on device"),
        (OSError(errno.EACCES, "Permission denied", "DATA"), "error: Permission denied: DATA"),
        (OSError("no such host"), "error: no such host"),
    ],
)
def test_what_the_user_can_correct_is_one_line(error: Exception, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(error)() == Exit.ERROR
    assert raising(error, failed=Exit.USAGE)() == Exit.USAGE
    with pytest.raises(SystemExit) as ended, one_line(failed=Exit.PROCESSES):
        raise error
    assert ended.value.code == Exit.PROCESSES
    assert capsys.readouterr().err.splitlines() == [said] * 3


def test_a_file_error_without_a_file_says_where(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), one_line(where="RUN"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert capsys.readouterr().err == "error: No space left on device: RUN\n"


@pytest.mark.parametrize("bug", [ValueError("shapes"), TypeError("None"), KeyError("x"), RuntimeError("traced")])
def test_a_bug_keeps_its_trace(bug: Exception) -> None:
    with pytest.raises(type(bug)):
        raising(bug)()
    with pytest.raises(type(bug)), one_line():
        raise bug


def test_ctrl_c_says_what_has_become_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(KeyboardInterrupt(), interrupted="nothing was written")() == 130
    assert raising(KeyboardInterrupt())() == 130
    assert capsys.readouterr().err == "\ninterrupted; nothing was written\n\ninterrupted\n"


PRINTS = """
import sys
from medvill_jax.commands import command

@command()
def main(argv=None):
    print("word\\n" * {lines})
    return 0

sys.exit(main())
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_is_gone_is_no_news(lines: int, unbuffered: str) -> None:
    here, there = os.pipe()
    os.close(here)
    done = subprocess.run(
        [sys.executable, "-c", PRINTS.format(lines=lines)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        stdout=there,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(there)
    assert (done.returncode, done.stderr) == (Exit.ERROR, b"")


def test_a_broken_connection_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert raising(BrokenPipeError(errno.EPIPE, "Broken pipe"))() == Exit.ERROR
    assert capsys.readouterr().err == "error: Broken pipe\n"


@pytest.mark.parametrize("status", [Exit.ERROR, Exit.USAGE])
def test_a_wrong_flag_is_one_line(status: Exit, capsys: pytest.CaptureFixture[str]) -> None:
    parser = Parser("python -m program", "Help.", status=status)
    parser.add_argument("--studies", type=int)
    for wrong in ("--studies=x", "--stud=3"):
        with pytest.raises(SystemExit) as ended:
            parser.parse_args([wrong])
        assert ended.value.code == status
        [line] = capsys.readouterr().err.splitlines()
        assert line.startswith("error: ")
        assert line.endswith("; --help tells more")


# They stop what they have started, and pass an interruption on.
CLEANING = ("distributed.py", "beam_runner.py")


def test_nobody_else_reads_a_command_line_or_ends_a_program() -> None:
    own = ROOT / "medvill_jax" / "commands.py"
    for top in ("medvill_jax", "data_prep", "benchmarks"):
        for path in (ROOT / top).rglob("*.py"):
            text = path.read_text()
            assert path == own or "ArgumentParser(" not in text, f"{path} has a parser of its own"
            assert path == own or "except KeyboardInterrupt" not in text or path.name in CLEANING, path

"""`medvill launch` as it is typed."""

import subprocess
from pathlib import Path

import pytest

from tests.cli import RunPy
from tests.console.examples import examples, with_places

RUN = ("--config=configs/pretrain.py", "--config.data.path=gs://BUCKET/mimic", "--workdir=gs://BUCKET/runs/Mimic_1")


def test_the_examples_of_the_help(medvill: RunPy, tmp_path: Path) -> None:
    told = medvill("launch", "--help")
    found = examples(told.out)
    assert [words[1] for words in found] == ["slurm", "gke-jobset", "skypilot"]
    for words in found:
        ended = medvill(*with_places(words, {"CONFIG": "configs/pretrain.py"}))
        assert (ended.status, ended.err) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mimic.jobset.yaml", "mimic.sbatch", "mimic.sky.yaml"]
    assert ended.out == "mimic.sky.yaml: start it by sky jobs launch -n mimic mimic.sky.yaml\n"


def test_a_script_for_slurm(medvill: RunPy, tmp_path: Path) -> None:
    spaced = "--config.init.checkpoint=/shared/a b"
    words = ("--config=configs/pretrain.py", "--config.data.path=/shared/mimic", "--workdir=runs/mimic", spaced)
    ended = medvill("launch", "slurm", "--nodes=4", "--gpus=8", "--sbatch=--time=24:00:00", *words)
    assert (ended.status, ended.out) == (0, "mimic.sbatch: start it by sbatch mimic.sbatch\n")
    text = (tmp_path / "mimic.sbatch").read_text()
    options = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert options[:3] == ["--job-name=mimic", "--nodes=4 --ntasks-per-node=1 --cpus-per-task=8", "--gpus-per-node=8"]
    assert options[-1] == "--time=24:00:00"
    assert f'--chdir="{tmp_path}"' in options
    assert f"export MEDVILL_JAX_CACHE={tmp_path}/runs/compiled\n" in text
    # What bash makes of it, with programs of SLURM that only tell what they are asked.
    said = 'srun() { printf \'%s\\n\' "$@"; return 75; }; squeue() { echo RUNNING; }; exec() { echo "$@"; }; '
    script = f"SLURM_JOB_ID=7; {said} {text}"
    told = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert told.stdout.splitlines()[-6:] == [*words, "--stopped_status=75", "scontrol requeue 7"]


def test_a_job_in_a_bucket_is_named_after_it(medvill: RunPy, tmp_path: Path) -> None:
    assert medvill("launch", "slurm", *RUN).out.startswith("mimic-1.sbatch: ")
    assert "JAX_COMPILATION_CACHE_DIR=gs://BUCKET/runs/compiled\n" in (tmp_path / "mimic-1.sbatch").read_text()


SKY = ("skypilot", "--accelerators=H100:8")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "ENGINE"),
        (("kueue",), "kueue"),
        (("slurm", "--config=configs/nowhere.py"), "configs/nowhere.py"),
        (("slurm", RUN[0]), "--workdir is needed"),
        (("slurm", *RUN, "--config.batchsize=3"), "batch_size"),
        (("slurm", *RUN, "--nodes=0"), "--nodes"),
        (("slurm", *RUN, "--process_id=0"), "--process_id: leave it out"),
        (("slurm", *RUN, "--stopped_status=0"), "--stopped_status: leave it out"),
        (("slurm", *RUN, "--mode=compile"), "--mode=compile"),
        (("slurm", *RUN, "--sbatch=time=3"), "--sbatch=time=3"),
        (("slurm", *RUN, "--name=a_b"), "--name=a_b"),
        (("slurm", *RUN, "--out=there"), "there exists"),
        (("gke-jobset", *RUN), "--image"),
        (("gke-jobset", *RUN, "--image=IMAGE"), "--topology"),
        (("gke-jobset", *RUN, "--image=IMAGE", "--topology=v5e:4by4"), "v5e:4by4"),
        (("skypilot", *RUN), "--accelerators"),
        ((*SKY, *RUN[:2], "--workdir=runs/a"), "--workdir=runs/a: these machines share no disk"),
        (
            (*SKY, *RUN, "--config.init.checkpoint=there"),
            "--config.init.checkpoint=there: these machines",
        ),
        ((*SKY, RUN[0], RUN[2], "--config.data.path=/data"), "--config.data.path=/data: these machines share no disk"),
    ],
)
def test_what_is_wrong_is_one_line_and_writes_nothing(
    medvill: RunPy, tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    (tmp_path / "there").write_text("before")
    ended = medvill("launch", *words)
    assert ended.status == 2
    assert told in ended.error
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_text() == "before"

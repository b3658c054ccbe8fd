"""A tiny run on the real loader, trainer, loop and checkpoints, as a program that tests start, kill and start again.

    python tests/cluster/job.py --workdir=DIR [--steps=N] [--fsdp=N] [--coordinator=HOST:PORT ...]

A two-layer network with dropout learns to tell the mean of randomly shifted pictures. Its batch statistics count how
often each example was seen, so a checkpoint tells what its run has learnt from, and the final state is written to
WORKDIR/final.npz.
"""

import argparse
import functools
import logging
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from medvill_jax.cluster import distributed
from medvill_jax.cluster.stopping import StopSignal
from medvill_jax.cluster.workdir import CHECKPOINT_DIR, Workdir, WorkdirError
from medvill_jax.data import loader
from medvill_jax.training import average, bad_steps, checkpoint, loop, optimizer, sharding, step, trainer

EXAMPLES = 24
BATCH = 8
SIDE = 6
WIDTH = 16
SPEC = {
    "image": jax.ShapeDtypeStruct((BATCH, SIDE, SIDE), np.uint8),
    "target": jax.ShapeDtypeStruct((BATCH,), np.float32),
    "record": jax.ShapeDtypeStruct((BATCH,), np.int32),
}


class Pictures:
    """Made from their numbers; shifted by draws from their places in the stream."""

    pause = 0.0
    bad: frozenset[int] = frozenset()  # steps, from 0, whose targets are not numbers

    def __len__(self) -> int:
        return EXAMPLES

    def example(self, record: int, place: int) -> dict[str, np.ndarray]:
        time.sleep(self.pause)
        image = np.random.default_rng(record).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
        shift = int(np.random.default_rng((1, place)).integers(SIDE))
        return {
            "image": np.roll(image, shift, axis=0),
            "target": np.float32(np.nan if place // BATCH in self.bad else image.mean() / 256),
            "record": np.int32(record),
        }


def init(key: jax.Array) -> tuple[dict, dict]:
    """Parameters that an fsdp axis of 2, 4 or 8 splits, and the counts."""
    first, second = jax.random.split(key)
    params = {
        "first": {"kernel": jax.random.normal(first, (SIDE * SIDE, WIDTH)) / SIDE, "bias": jnp.zeros(WIDTH)},
        "second": {"kernel": jax.random.normal(second, (WIDTH, 1)) / 4, "bias": jnp.zeros(1)},
    }
    return params, {"seen": {"count": jnp.zeros(EXAMPLES, jnp.int32)}}


def sums(params: dict, stats: dict, batch: Any, key: jax.Array) -> tuple[dict, dict]:
    """The squared error, with dropout on the hidden layer."""
    image = batch["image"].reshape(-1, SIDE * SIDE) / 128.0 - 1.0
    hidden = jax.nn.relu(image @ params["first"]["kernel"] + params["first"]["bias"])
    hidden *= jax.random.bernoulli(key, 0.8, hidden.shape) / 0.8
    error = (hidden @ params["second"]["kernel"] + params["second"]["bias"])[:, 0] - batch["target"]
    count = stats["seen"]["count"].at[batch["record"]].add(1)
    return {"square": jnp.sum(error**2)}, {"seen": {"count": count}}


def main() -> None:
    """One start of the run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", required=True)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--checkpoint_every", type=int, default=5)
    parser.add_argument("--eval_every", type=int, default=0)
    parser.add_argument("--fsdp", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that every batch takes")
    parser.add_argument("--eval_pause", type=float, default=0.0, help="seconds that each of 50 evaluated batches takes")
    parser.add_argument("--load_processes", type=int, default=0)
    parser.add_argument("--load_pause", type=float, default=0.0, help="seconds that every example takes")
    parser.add_argument("--bad", type=int, nargs="*", default=(), help="steps, from 0, with a batch that is not finite")
    parser.add_argument("--policy", default="stop", help="of bad steps")
    parser.add_argument("--decay", type=float, default=0.0, help="of averaged weights")
    parser.add_argument("--coordinator")
    parser.add_argument("--num_processes", type=int)
    parser.add_argument("--process_id", type=int)
    parser.add_argument("--startup_timeout", type=float, default=60.0)
    args = parser.parse_args()
    flags.FLAGS(sys.argv[:1])  # grain's loading processes read some of their own
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    for noisy in ("absl", "gcsfs", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        distributed.start_if_cluster(args.coordinator, args.num_processes, args.process_id, args.startup_timeout)
    except distributed.StartupError as error:
        sys.exit(fail(error, 3))
    with distributed.together():
        try:
            run(args)
        except (WorkdirError, checkpoint.CheckpointError, OSError) as error:
            sys.exit(fail(error, 1))


def fail(error: Exception, status: int) -> int:
    """As run.py tells it."""
    print(f"error: {error}", file=sys.stderr)
    return status


def run(args: argparse.Namespace) -> None:
    """To the end, or to a signal."""
    fields = {"steps": args.steps}
    workdir, stop = Workdir(args.workdir), StopSignal()
    token = distributed.on_first("claim", lambda: workdir.claim(fields, ()))
    workdir.check_shared(token, fields)
    task = trainer.Trainer(
        workdir.path,
        checkpoints=workdir.home / CHECKPOINT_DIR,
        mesh=sharding.make_mesh(args.fsdp),
        init=init,
        objective=step.Objective(sums, lambda batch: {"square": jnp.float32(BATCH)}, {"square": 1.0}),
        spec=SPEC,
        frozen=frozenset(),
        config=trainer.RunConfig(
            seed=0,
            accumulate=1,
            loop=loop.LoopConfig(
                args.steps,
                BATCH,
                1,
                args.eval_every,
                args.checkpoint_every,
                bad_steps=bad_steps.BadSteps(args.policy, in_a_row=3, save_every=args.checkpoint_every),
            ),
            keep=checkpoint.Keep(last=2, best=0),
            optimizer=optimizer.OptimizerConfig(learning_rate=1e-2),
            average=average.Average(args.decay),
        ),
        hosts=distributed,
        check=stop.check,
    )

    def batches(start: int) -> Any:
        def paused() -> Any:
            pictures, workers = Pictures(), loader.Workers(threads=1, processes=args.load_processes, buffer=1)
            pictures.pause, pictures.bad = args.load_pause, frozenset(args.bad)
            for batch in loader.train_batches(
                pictures,
                batch_size=BATCH,
                seed=0,
                start_step=start,
                stop_step=args.steps,
                workers=workers,
            ):
                time.sleep(args.pause)
                yield batch

        return loader.to_device(paused(), task.batch_sharding)

    count = task.jit(lambda params, stats: jnp.sum(stats["seen"]["count"]))

    def evaluate(state: Any) -> dict[str, float]:
        for _ in range(50):
            time.sleep(args.eval_pause)
            found = float(count(state["params"], state["stats"]))
        return {"eval/loss": found}

    try:
        with stop:
            complete, _ = task.fit(
                batches,
                stop.interruptible(evaluate),
                should_stop=stop.stops,
                publish=functools.partial(workdir.publish, patient=True),
            )
    finally:
        workdir.publish()
    if not complete:
        return
    last, state, _ = task.best_state()
    state = task.to_host({"params": state["params"], "stats": state["stats"]})
    if distributed.is_first():
        leaves = jax.tree_util.tree_leaves_with_path(state)
        np.savez(workdir / "final.npz", step=last, **{jax.tree_util.keystr(p): leaf for p, leaf in leaves})
    workdir.publish()


if __name__ == "__main__":
    main()

"""What a run of any task will take on other hardware: its length, its state and its input, for `compile.plan`."""

from __future__ import annotations

from medvill_jax.compile import plan as planning
from medvill_jax.compile.aot import CompileReport
from medvill_jax.data import loader
from medvill_jax.errors import ConfigError
from medvill_jax.tasks import length, setup
from medvill_jax.tasks.runner import Runner


def plan(runner: Runner, report: CompileReport, records: int | None, input_rate: float | None) -> planning.Plan:
    """What a run will take on the hardware of a report.

    Args:
        runner: of the run.
        report: of its step.
        records: training examples, if the data are not here.
        input_rate: examples/s that one host loads; None measures it, if the data are here.

    Raises:
        ConfigError: there are data, and `records` differs from theirs.
    """
    config, train = runner.config, runner.parts.train_records
    if train is not None and records not in (None, len(train)):
        raise ConfigError(
            f"--train_records={records}, and {config.data.path or 'the mixture'} has {len(train)}: leave it out"
        )
    run = length.of(config, (records or 0) if train is None else len(train))
    source = "as --input_rate says"
    if input_rate is None and train is not None:
        workers = setup.workers(config.data)
        source = f"measured on this machine, with data.workers.processes={workers.processes}"
        input_rate = loader.rate(train, seed=config.seed, workers=workers)
    held = config.bad_steps.policy == "rollback"  # the one to go back to, if signals have made the last ones
    saves = [every for every in (config.checkpoint.every_steps, run.eval_every) if every]
    return planning.plan(
        report,
        planning.Run(
            hosts=len({device.process_index for device in runner.trainer.mesh.devices.flat}),
            records=run.records,
            steps=run.steps,
            save_every=min(saves, default=0),
            kept=config.checkpoint.keep_last + config.checkpoint.keep_best + held,
            state=runner.trainer.abstract_state,
            input_rate=input_rate,
            input_source=source,
        ),
    )

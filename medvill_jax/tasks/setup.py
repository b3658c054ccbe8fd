"""From sections of the configuration to the dataclasses of the packages: the one place that knows both."""

from __future__ import annotations

import dataclasses
import functools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from medvill_jax.cluster.workdir import flat
from medvill_jax.compile import topology
from medvill_jax.data import mixture
from medvill_jax.data.loader import Workers
from medvill_jax.errors import ConfigError
from medvill_jax.hub.init import load_init
from medvill_jax.models.attention_masks import MEETING
from medvill_jax.models.bert import BertConfig
from medvill_jax.models.compat import Compat
from medvill_jax.models.medvill import MedvillConfig
from medvill_jax.tasks.length import IN_LENGTH, Length
from medvill_jax.training import sinks
from medvill_jax.training.average import Average
from medvill_jax.training.bad_steps import BadSteps
from medvill_jax.training.checkpoint import Keep
from medvill_jax.training.loop import LoopConfig
from medvill_jax.training.optimizer import OptimizerConfig
from medvill_jax.training.trainer import RunConfig, WarmStart
from medvill_jax.trees import Tree

log = logging.getLogger(__name__)

# An ml_collections.ConfigDict, whose fields have no static types.
Config = Any


def public(config: Config) -> dict[str, Any]:
    """The configuration as a model card shows it: without paths, and without the initial weights."""
    shown = config.to_dict()
    del shown["init"], shown["data"]["path"], shown["data"]["tokenizer"]
    shown["data"].pop("questions", None)
    if text := shown["data"].pop("mixture", ""):
        shown["data"]["mixture"] = {source.name: float(source.weight) for source in mixture.parse(text)}
    return shown


def refuse_mixture(config: Config) -> None:
    """Raises `ConfigError` if the configuration names a mixture of data sets."""
    if config.data.get("mixture"):  # evaluations without training lack the field
        raise ConfigError(f"only pre-training takes {mixture.FIELD}: name one data set by config.data.path")


def model_config(config: Config, *, vocab_size: int, cls_id: int, sep_id: int) -> MedvillConfig:
    """`config.model` with the tokenizer's sizes.

    Raises:
        ConfigError: sizes that do not fit together.
    """
    if config.text_len + 1 > config.max_positions:
        raise ConfigError(
            f"model.text_len={config.text_len} and a [SEP] do not fit model.max_positions={config.max_positions}"
        )
    if not 1 <= config.views <= 3:
        raise ConfigError(f"model.views={config.views} is not in 1..3")
    return MedvillConfig(
        bert=BertConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            num_layers=config.num_layers,
            num_heads=config.num_heads,
            intermediate_size=config.intermediate_size,
            max_positions=config.max_positions,
            token_types=config.views + 1,  # one of the text, and of each film
            dropout=config.dropout,
            layer_norm_eps=config.layer_norm_eps,
            initializer_range=config.initializer_range,
        ),
        image_encoder=config.image_encoder,
        image_size=config.image_size,
        attention=config.attention,
        num_cells=config.num_cells or None,
        s2s_prob=config.s2s_prob,
        cls_id=cls_id,
        sep_id=sep_id,
        compat=Compat.named(config.compat),
        views=config.views,
    )


def dtype(config: Config) -> jnp.dtype:
    """The type that the network computes in: `config.dtype`, or for "auto" the one that suits the devices of the run.

    Raises:
        ConfigError: it is not a floating-point type.
    """
    name = config.dtype
    if name == "auto":
        if target := config.mesh.topology:
            name = _suited(topology.parse(target).kind)
        else:
            device = jax.devices()[0]
            name = _suited(device.platform, getattr(device, "compute_capability", ""))
    try:
        dtype = jnp.dtype(name)
    except TypeError:
        dtype = None
    if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise ConfigError(f"dtype={config.dtype!r}; there are auto, float32, bfloat16, float16")
    return dtype


def _suited(kind: str, capability: str = "") -> str:
    """The type of a kind of device: bfloat16 for TPUs, and GPUs from compute capability 8.0 (Ampere, 2020) on."""
    return "float32" if kind == topology.CPU or re.fullmatch(r"[0-7]\.\d+", capability) else "bfloat16"


def require_known(config: Config, choices: Mapping[str, Sequence[str]]) -> None:
    """Raises `ConfigError` if a field, by its dotted name, has a value that is not one of its choices."""
    for name, known in choices.items():
        value = functools.reduce(getattr, name.split("."), config)
        if value not in known:
            raise ConfigError(f"{name}={value!r}; there are {', '.join(known)}")


def require_meeting(config: Config) -> None:
    """Raises `ConfigError` if a task fuses image and text under a mask that keeps them apart."""
    if config.fusion == "joint" and config.model.attention not in MEETING:
        raise ConfigError(
            f"model.attention={config.model.attention}: no image sees its text under it, and this task needs "
            f"both; there are {', '.join(MEETING)}"
        )


def require_one_view(config: Config) -> None:
    """Raises `ConfigError` if a task that takes one film is to take several."""
    if config.model.views != 1:
        raise ConfigError(
            f"model.views={config.model.views}: task {config.task} takes one film; set model.views=1, or choose one of "
            "the tasks that take several: pretrain, classify, generate"
        )


def run_config(config: Config, length: Length, seen: Callable[[int], Mapping[str, int]] | None = None) -> RunConfig:
    """Seed, accumulation, cadence, checkpoints and optimizer of any task's configuration, for a run of this length.

    `seen` tells how many of a number of training examples are of each source of a mixture.

    Raises:
        ConfigError: less than one microbatch, or a rule of bad steps or a decay that is out of range.
    """
    if config.accumulate < 1:
        raise ConfigError(f"accumulate={config.accumulate} is below 1")
    optimizer = {name: value for name, value in config.optimizer.items() if name not in IN_LENGTH}
    return RunConfig(
        dtype=dtype(config).name,
        seed=config.seed,
        accumulate=config.accumulate,
        loop=LoopConfig(
            steps=length.steps,
            batch_size=config.batch_size,
            log_every=config.log.every_steps,
            eval_every=length.eval_every,
            checkpoint_every=config.checkpoint.every_steps,
            load_processes=config.data.workers.processes,
            sinks=sinks.chosen(config.log.get("sinks", ""), flat(public(config))),
            bad_steps=BadSteps(**config.bad_steps, save_every=config.checkpoint.every_steps),
            seen=seen or (lambda examples: {}),
        ),
        keep=Keep(
            last=config.checkpoint.keep_last,
            best=config.checkpoint.keep_best,
            metric=config.checkpoint.metric,
            higher_is_better=config.checkpoint.higher_is_better,
        ),
        optimizer=OptimizerConfig(**(optimizer | length.optimizer)),
        average=Average(config.ema.decay),
    )


def warm_start(config: Config, model: MedvillConfig, unused: Sequence[str] = ()) -> WarmStart | None:
    """Loads the weights that `config.init` names into a fresh run; None if it names none.

    It raises `HubError` when called. Parameters that match a regex of `unused` may be missing.
    """
    paths = {name: config[name] for name in ("bert", "resnet", "checkpoint") if config[name]}
    if not paths:
        return None

    def load(params: Tree, stats: Tree) -> tuple[Tree, Tree]:
        params, stats, report = load_init(
            params, stats, **paths, allow=(*config.allow, *unused), fresh=config.fresh, config=model
        )
        for line in report.lines():
            log.info("init: %s", line)
        return params, stats

    return load


def workers(config: Config) -> Workers:
    """`config.data.workers`."""
    return Workers(**{field.name: config.workers[field.name] for field in dataclasses.fields(Workers)})

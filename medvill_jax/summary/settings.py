"""The configuration of a run beside the defaults of its task."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

from medvill_jax.cluster.workdir import ADDED_FIELDS, flat

VARIANTS = ("", "small", "phantom", "modern")
_ABSENT = "(absent)"


class Setting(NamedTuple):
    """A field that differs: its name, and its values in words."""

    field: str
    values: tuple[str, ...]


def nearest(config: Mapping[str, Any]) -> tuple[str, list[Setting]] | None:
    """The file and variant that a configuration differs least from, and how: for each field its value and the default.

    None if the task's file is not among `configs/`.
    """
    task = str(config.get("task", ""))
    try:
        defaults = importlib.import_module(f"configs.{task}") if task.isidentifier() else None
    except ModuleNotFoundError:
        defaults = None
    if defaults is None or not hasattr(defaults, "get_config"):
        return None
    found = []
    for variant in VARIANTS:
        try:
            default = json.loads(json.dumps(defaults.get_config(variant).to_dict()))
        except ValueError:  # the file has no such variant
            continue
        if default.get("dtype") == "auto":  # which a run settles when it starts
            default["dtype"] = config.get("dtype")
        found.append((f"configs/{task}.py{variant and ':'}{variant}", differences([config, default])))
    return min(found, key=lambda one: len(one[1]))


def differences(configs: Sequence[Mapping[str, Any]]) -> list[Setting]:
    """The fields in which configurations differ, with the value of each; folders are shown without what they lie in."""
    own = [flat(config) for config in configs]
    fields = [ADDED_FIELDS | one for one in own]
    return [
        Setting(name, tuple(shown(one[name]) if name in one else _ABSENT for one in fields))
        for name in sorted({name for one in own for name in one})
        if any(one.get(name, _ABSENT) != fields[0].get(name, _ABSENT) for one in fields)
    ]


def shown(value: Any) -> str:
    """A value as text. Of paths, which may name a user or a patient, only the last two parts."""
    if isinstance(value, str):
        value = ",".join(map(_short, value.split(",")))
    return value if isinstance(value, str) and value else json.dumps(value)


def _short(text: str) -> str:
    return "/".join(("...", *PurePath(text).parts[-2:])) if text.startswith(("/", "~", "gs://")) else text


def without_paths(config: Mapping[str, Any]) -> dict[str, Any]:
    """All fields by name, as `shown`."""
    return {name: shown(value) for name, value in sorted(flat(config).items())}

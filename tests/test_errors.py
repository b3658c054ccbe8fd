"""One family of errors: what a user can correct, and nothing else."""

import importlib
import inspect
import pickle
import pkgutil

import pytest

import data_prep
import medvill_jax
from medvill_jax.compile.aot import TooLargeError
from medvill_jax.errors import ConfigError, MissingExtra, UserError
from medvill_jax.films.limits import ImageError

# Between threads, processes or functions of ours; no command shows them.
INTERNAL = {
    "medvill_jax.cluster.distributed.BarrierError",
    "medvill_jax.metrics.radeval_scores.LoadError",
    "medvill_jax.films.files.TooLargeError",
    "medvill_jax.web.refusals.Refused",
    "medvill_jax.web.worker.Busy",
    "data_prep.pairs._NoObjectError",
}


def errors() -> dict[str, type[Exception]]:
    """All exceptions that are defined here and called errors, by their names."""
    found = {}
    for package in (medvill_jax, data_prep):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith(("__main__", ".run", ".ray_serve")):  # the last needs an extra of its own
                continue
            for name, value in vars(importlib.import_module(module.name)).items():
                if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == module.name:
                    found[f"{module.name}.{name}"] = value
    return {name: error for name, error in found.items() if "Stopped" not in name}


def test_every_error_that_a_user_sees_is_of_the_family() -> None:
    outside = {name for name, error in errors().items() if not issubclass(error, UserError)}
    assert outside == INTERNAL


def test_a_wrong_value_is_a_value_error_of_the_family() -> None:
    with pytest.raises(ValueError, match="wrong") as raised:
        raise ConfigError("wrong")
    assert isinstance(raised.value, UserError)


@pytest.mark.parametrize(
    "error",
    [
        MissingExtra("pydicom", "dicom", "reading DICOM files"),
        ImageError("unreadable_image", "an image of 0 x 3 pixels is empty"),
        TooLargeError(32, 4, "v5e:2x2", None, 1 << 30),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_the_way_from_a_worker(error: UserError) -> None:
    arrived = pickle.loads(pickle.dumps(error))
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)

"""The data of all tests of learning, and the two ways in which each of them is run."""

import numpy as np
import pytest

from medvill_jax.data import loader, records
from medvill_jax.models import encoders
from tests.learning import overfit
from tests.learning.overfit import Phantom, show_film


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Phantom:
    """Forty phantom studies, prepared, in an order that makes rolling them a harm."""
    made = Phantom(tmp_path_factory.mktemp("phantom"))
    films = records.read_columns(made.reports, "train", ["id"])["id"].tolist()
    asked = [made.questions[name] for name in records.read_columns(made.asked, "train", ["id"])["id"]]
    assert np.mean([made.positive(one) == made.positive(films[n - 1]) for n, one in enumerate(films)]) < 0.2
    assert np.mean([one.film == asked[n - 1].film for n, one in enumerate(asked)]) < 0.1
    return made


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests would otherwise spend most of their time on, and not with learning."""
    monkeypatch.setitem(encoders.ENCODERS, overfit.ENCODER, overfit.NARROW)
    monkeypatch.setattr(loader, "shuffled", overfit.shuffled)


@pytest.fixture(params=[False, True], ids=["own", "rolled"])
def rolled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether every record shows the film of the record after it, which a test has to notice."""
    if request.param:
        show_film(monkeypatch, lambda record, count: (record + 1) % count)
    return request.param

"""A request that a replica took with it is given to another, within bounds."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from medvill_jax.serving.retrying import TRIED, answered
from medvill_jax.web.refusals import Refused
from tests import coroutines


class Died(Exception):
    """What an engine raises."""


def asked(send: Callable[[int], object], seconds: float = 300) -> tuple[object, int]:
    """The answer, and how many replicas had the request; `send` is called with the number of each."""
    tried = 0

    async def one() -> object:
        nonlocal tried
        tried += 1
        await asyncio.sleep(0)
        return send(tried)

    return coroutines.run(answered(one, Died, seconds)), tried


def dies_with(most: int) -> Callable[[int], object]:
    def send(number: int) -> str:
        if number <= most:
            raise Died("words of a film")
        return "edema"

    return send


@pytest.mark.parametrize("deaths", range(TRIED))
def test_another_replica_answers(deaths: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert asked(dies_with(deaths)) == ("edema", deaths + 1)
    assert len(caplog.records) == deaths
    assert "words of a film" not in caplog.text


def test_a_request_that_kills_replicas_is_not_given_to_all_of_them() -> None:
    tried = []

    def send(number: int) -> object:
        tried.append(number)
        raise Died

    with pytest.raises(Refused, match=f"{TRIED} replicas ended") as refused:
        asked(send)
    assert refused.value.status == 503
    assert len(tried) == TRIED


def test_what_no_replica_answers_is_refused_in_time() -> None:
    async def never() -> object:
        return await asyncio.Future()

    with pytest.raises(Refused, match=r"within 0\.01 s: try again later") as refused:
        coroutines.run(answered(never, Died, 0.01))
    assert refused.value.status == 503


def test_an_error_of_the_program_is_raised_at_once() -> None:
    def send(number: int) -> object:
        raise ZeroDivisionError(number)

    with pytest.raises(ZeroDivisionError, match="1"):
        asked(send)

"""Films of one batch, asked different things."""

from collections.abc import Sequence
from typing import Any

from medvill_jax.serving.batches import together
from medvill_jax.web.service import Ask

FINDINGS, REPORT, QUESTION = Ask(0, "findings"), Ask(0, "report"), Ask(0, "ask", '{"question": "Is it?"}')
JOBS: Any = [(FINDINGS, 1), (REPORT, 2), (FINDINGS, 3), (QUESTION, 4), (REPORT, 5), (QUESTION, 6)]


def test_every_job_has_its_own_answer_or_error() -> None:
    computed = []

    def compute(ask: Ask, films: Sequence[Any]) -> list[dict[str, Any]]:
        computed.append((ask, [*films]))
        if ask == REPORT:
            raise ValueError("no memory")
        return [{"task": ask.task, "film": film} for film in films]

    answers = together(compute, JOBS)
    assert computed == [(FINDINGS, [1, 3]), (REPORT, [2, 5]), (QUESTION, [4, 6])]
    for (ask, film), answer in zip(JOBS, answers, strict=True):
        if ask == REPORT:
            assert isinstance(answer, ValueError)
        else:
            assert answer == {"task": ask.task, "film": film}

"""On Ray Serve: any number of replicas of a model, and before them an ingress that loses no request if one dies.

    serve run medvill_jax.serving.ray_serve:app model=EXPORT

`docs/serving.md` says how it is scaled and deployed.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from click import ClickException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ray import serve  # pyright: ignore[reportMissingImports]
from ray.exceptions import RayActorError  # pyright: ignore[reportMissingImports]
from ray.serve.exceptions import DeploymentUnavailableError  # pyright: ignore[reportMissingImports]
from starlette.responses import JSONResponse, Response

from medvill_jax.app import queries
from medvill_jax.app.model import export_of, load
from medvill_jax.errors import UserError
from medvill_jax.serving import ingress
from medvill_jax.serving.batches import together
from medvill_jax.serving.retrying import answered
from medvill_jax.web import limits, openapi
from medvill_jax.web.refusals import Refused, refusal
from medvill_jax.web.routes import READERS
from medvill_jax.web.service import Service, check_tasks, needed

# Requests that a replica has at a time. As many as an ingress takes: those that a replica has no room for are offered
# again after growing pauses, in which it may stand still.
ONGOING = limits.REQUESTS


class Settings(BaseModel):
    """What the application takes.

    Attributes:
        model: an export, as for `medvill_jax.load`; every node that has a replica reads it.
        replicas: of the model.
        batch_wait: seconds for which a film waits for others to be computed with.
        timeout: seconds after which a request that no replica has answered is refused.
    """

    model_config = ConfigDict(extra="forbid")

    model: str = Field(min_length=1)
    replicas: int = Field(1, ge=1)
    batch_wait: float = Field(0.01, ge=0)
    timeout: float = Field(300.0, gt=0)


class Model:
    """One replica."""

    def __init__(self, model: str, batch_wait: float):
        logging.getLogger("PIL").setLevel(logging.CRITICAL)  # it logs what it finds odd about a film
        self._service = Service([load(model)], None, lambda task, films, seconds: None)
        self._service.warm()
        self._readers = ThreadPoolExecutor(READERS, "reads")

        @serve.batch(max_batch_size=limits.TOGETHER, batch_wait_timeout_s=batch_wait)
        async def computed(jobs: Any) -> Any:  # called with a job, it is given a list of them
            # On a thread, so that the replica goes on to take requests and to say that it lives.
            return await asyncio.to_thread(together, self._service.compute, jobs)

        self._computed = computed

    async def about(self) -> dict[str, Any]:
        """What can be asked here."""
        return self._service.about()

    async def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return openapi.document([*self._service.by_task], self._service.needed, keeps=False)

    async def predict(self, task: str, kind: str, body: bytes) -> Response:
        """The answer to a request, or its refusal: what is raised here would be in Ray's log, with its words."""
        loop = asyncio.get_running_loop()
        try:
            job = await loop.run_in_executor(self._readers, self._service.at_once, task, kind, body)
            answer = await self._computed(job)
            return refusal(answer) if isinstance(answer, Exception) else JSONResponse(answer)
        except Exception as error:
            return refusal(error)


def app(arguments: dict[str, Any]) -> Any:
    """The application, for `serve run` and Serve's configuration files; it takes `Settings`.

    Raises:
        ClickException: they do not fit, or there is no such export where this is called; `serve run` shows it as one
            line. Otherwise every replica would say so, one after the other.
    """
    try:
        settings = Settings.model_validate(arguments)
        export = export_of(settings.model)
        check_tasks(settings.model, tasks := queries.tasks_of(export, export.config))
        options = needed("findings" in tasks and queries.reads_reports(export))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
        raise ClickException("; ".join(wrong)) from None
    except UserError as error:
        raise ClickException(" ".join(str(error).split())) from None
    own = {"max_ongoing_requests": ONGOING, "graceful_shutdown_timeout_s": limits.DRAIN}
    model = serve.deployment(name="Model", num_replicas=settings.replicas, **own)(Model)

    def asgi() -> Any:
        handle = serve.get_deployment_handle("Model")
        return ingress.app(functools.partial(_asked, handle, settings.timeout), options)

    # More than it takes at a time, so that it refuses the rest at once instead of having them wait.
    door = {"max_ongoing_requests": 2 * limits.REQUESTS, "graceful_shutdown_timeout_s": limits.DRAIN}
    front = serve.deployment(name="Ingress", ray_actor_options={"num_cpus": 0}, **door)(serve.ingress(asgi)())
    return front.bind(model.bind(settings.model, settings.batch_wait))


async def _asked(handle: Any, seconds: float, method: str, *given: Any) -> Any:
    """What a method of a replica returns. Raises `Refused`."""
    try:
        return await answered(lambda: getattr(handle, method).remote(*given), RayActorError, seconds)
    except DeploymentUnavailableError:
        raise Refused(503, "no replica could be started: the log of Ray says why") from None

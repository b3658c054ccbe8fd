"""What a client is told of an error: a status and one sentence."""

from __future__ import annotations

import logging
import traceback

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from medvill_jax.errors import ConfigError, MissingExtra, UserError
from medvill_jax.films.limits import ImageError
from medvill_jax.web.worker import Busy

# All that a client is told of an error of the program.
WRONG = "something went wrong here; the log says where"
log = logging.getLogger(__name__)


class Refused(Exception):
    """A request that cannot be taken, with its HTTP status."""

    def __init__(self, status: int, words: str):
        super().__init__(words)
        self.status = status


# What `refusal` has a sentence for; everything else is an error of the program.
EXPECTED: tuple[type[Exception], ...] = (Refused, HTTPException, Busy, UserError, ClientDisconnect)


def refusal(error: Exception) -> JSONResponse:
    """One clear message, whatever it is; what is not `EXPECTED` is logged without its words."""
    headers = {}
    match error:
        case Refused():
            status = error.status
        case HTTPException():
            status, headers = error.status_code, dict(error.headers or {})
            error = Exception(error.detail)
        case Busy():
            status, headers = 503, {"Retry-After": str(error.seconds)}
        case ImageError():
            status = 422
        case ConfigError():
            status = 400
        case MissingExtra():
            status = 501
        case ClientDisconnect():
            status = 499  # nobody reads it; the number is nginx's
        case UserError():
            status = 500
        case _:
            return wrong(error)
    return JSONResponse({"error": " ".join(str(error).split())}, status, headers)


def wrong(error: Exception) -> JSONResponse:
    """Logs the kind and the place of an error: its words may be those of a film or of a question."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    log.error("%s in %s, line %s", type(error).__name__, place.filename, place.lineno)
    return JSONResponse({"error": WRONG}, 500)

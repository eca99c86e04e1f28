"""Pages of other sites that may call this server from a browser (CORS), where the operator allows it."""

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from app.server.sequence import SEQUENCE_HEADERS
from app.settings import Settings, split_origins

_TO_SEE = ("inference-header-content-length", "retry-after")
"""Headers of answers that such a page's script may read."""


def install(app: FastAPI, settings: Settings) -> None:
    """Answer what browsers ask beforehand, and say on every answer to an allowed page that it may have it."""
    origins = split_origins(settings.cors_origins)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST", "HEAD"),
            allow_headers=("*",),
            expose_headers=_TO_SEE,
        )


def not_express(settings: Settings) -> frozenset[bytes]:
    """The headers of requests that the express lane leaves to the application: what it writes names no origins."""
    return SEQUENCE_HEADERS | {b"origin"} if split_origins(settings.cors_origins) else SEQUENCE_HEADERS

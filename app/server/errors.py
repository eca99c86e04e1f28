"""Canonical codes to HTTP, once; every error on every route is `{"error": "..."}`."""

import logging
import secrets
from collections.abc import Mapping

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.errors import Code, LitepoolError, Unavailable, printable
from app.protocols.call import Wire

log = logging.getLogger(__name__)

STATUS: dict[Code, int] = {
    Code.INVALID_ARGUMENT: 400,
    Code.FAILED_PRECONDITION: 400,
    Code.NOT_FOUND: 404,
    Code.TOO_LARGE: 413,
    Code.UNSUPPORTED_FORMAT: 415,
    Code.UNAVAILABLE: 503,
    Code.DEADLINE_EXCEEDED: 504,
    Code.INTERNAL: 500,
}


STATUSES: dict[Wire, Mapping[Code, int]] = dict.fromkeys(Wire, STATUS)
"""For each wire format, where it has its own."""

# As Triton answers a request that has waited too long.
STATUSES[Wire.INFER] = {**STATUS, Code.DEADLINE_EXCEEDED: 503}


def error_body(message: str) -> bytes:
    return orjson.dumps({"error": message})


def error_response(error: LitepoolError, wire: Wire = Wire.PREDICT) -> Response:
    """The answer that says what went wrong."""
    headers = {}
    if isinstance(error, Unavailable) and error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    return Response(error_body(error.message), STATUSES[wire][error.code], headers, "application/json")


def install(app: FastAPI) -> None:
    """Give every error of the app our form."""
    app.add_exception_handler(LitepoolError, _on_litepool_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(Exception, _on_bug)


def _on_litepool_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, LitepoolError)
    return error_response(error)


def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = printable(request.url.path[:200])
    message = str(error.detail)
    if error.status_code == 404:
        message = f"no route {path}; GET /docs lists them"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        message = f"{request.method} is not allowed on {path}" + (f": use {allowed}" if allowed else "")
    return Response(error_body(message), error.status_code, error.headers, "application/json")


def _on_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    fault = error.errors()[0]
    where = ".".join(str(part) for part in fault["loc"])
    return Response(error_body(f"{where}: {fault['msg']}"), 400, media_type="application/json")


def new_request_id() -> str:
    """What a message and the log call the same fault."""
    return secrets.token_hex(8)


def _on_bug(request: Request, error: Exception) -> Response:
    identity = new_request_id()
    log.error("request %s to %s failed", identity, request.url.path, exc_info=error)
    message = f"the server failed on this request; its log has it as request {identity}"
    return Response(error_body(message), 500, media_type="application/json")

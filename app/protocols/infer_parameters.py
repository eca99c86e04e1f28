"""Heads of Open Inference requests that differ in the request's parameters alone: a place in a sequence, a timeout."""

from typing import Any

import orjson

from app.protocols.infer_plan import Plan, told_of
from app.protocols.infer_request import keep

_NAME = b'"parameters"'
_NEAR = 16
"""Bytes within which they begin where they stand before all else, as perf_analyzer has them; or they stand last."""

_Place = tuple[bytes, bytes, bool]


class ByParameters:
    """What heads came to, by what is around their parameters. Any thread may use it."""

    def __init__(self) -> None:
        self.kept: dict[_Place, Plan] = {}
        """Also by whether outputs that are not listed are bytes, which decides what writes the answer."""

    def find(self, rest: bytes) -> Plan | None:
        """The plan of a head, given what comes behind its id; None where all of it must be read.

        Raises:
            InvalidArgument: one of its parameters is wrong.
        """
        found = _cut(rest)
        if found is None:
            return None
        place, parameters = found
        plan = self.kept.get(place)
        if plan is None:
            return None
        told = told_of(parameters)
        return plan._replace(timeout_ns=told.timeout_ns, place=told.place)

    def learn(self, rest: bytes, plan: Plan) -> None:
        """Remember what a head came to, given what comes behind its id."""
        found = _cut(rest)
        if found is not None and _is_theirs(*found[0]):
            keep(self.kept, found[0], plan)


def _cut(rest: bytes) -> tuple[_Place, Any] | None:
    """What is around the parameters, and they; None where they are not plain to see."""
    at = rest.find(_NAME, 0, _NEAR)
    if at < 0:
        at = rest.rfind(_NAME)
        if at < 0:
            return None
    start, end = rest.find(b"{", at), rest.find(b"}", at) + 1
    try:
        # None of them is an object: the first bracket that closes is theirs, or this is no JSON.
        parameters = orjson.loads(rest[start:end])
    except orjson.JSONDecodeError:
        return None
    if type(parameters) is not dict:
        return None
    return (rest[:start], rest[end:], parameters.get("binary_data_output") is True), parameters


def _is_theirs(before: bytes, after: bytes, _: bool) -> bool:
    """Whether any JSON between these is a request's parameters, whose id has been cut off."""
    # Twice, since a number may be there for another reason.
    for number in (1, 2):
        try:
            found = orjson.loads(b"{%b%d%b" % (before[1:], number, after))
        except orjson.JSONDecodeError:
            return False
        if type(found) is not dict or found.get("parameters") != number or "id" in found:
            return False
    return True

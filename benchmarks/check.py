"""Answers are checked before anything is measured: a server that is quick and wrong is not in the results."""

from __future__ import annotations

import concurrent.futures
import dataclasses

import numpy as np

from benchmarks.connection import BrokenAnswerError, Connection
from benchmarks.models import Floats, Model, Reference, records
from benchmarks.servers.base import Server
from benchmarks.wire import Request, Wire

# Largest difference from the interpreter's own answer. Quantization may round otherwise from converter to converter.
TOLERANCE = {"float32": 1e-4, "int8": 2e-2}
CLIENTS = 8
ROUNDS = 5


class WrongAnswerError(Exception):
    """A status that is no 2xx, a body that cannot be read, or numbers that are not the model's."""


@dataclasses.dataclass(frozen=True)
class Checked:
    """How many answers were compared, and the largest difference in any."""

    answers: int
    max_difference: float


def request(server: Server, model: Model, port: int, wire: Wire, batch: Floats) -> Request:
    return Request(port, server.path(model), wire.content_type, wire.encode(batch))


def check(server: Server, model: Model, port: int) -> Checked:
    """Single records and the client's batches in each format; then different records from several clients at once."""
    batch = records(model, model.batches[1])
    right = Reference(model.tflite(server.variant)).answer(batch) if server.variant else None
    differences = []
    with Connection(port) as connection:
        for wire in filter(None, (server.json, server.npy)):
            for part in (slice(0, 1), slice(1, 2), *(slice(0, size) for size in model.batches)):
                ask = request(server, model, port, wire, batch[part]).raw()
                success, body = connection.fetch(ask)
                differences.append(judge(server, wire, success, body, right[part] if right is not None else None))
    differences += together(server, model, port, batch, right)
    return Checked(len(differences), max(differences))


def judge(server: Server, wire: Wire, success: bool, body: bytes, right: Floats | None) -> float:
    """The largest difference; the floor is asked for a 2xx only."""
    if not success:
        raise WrongAnswerError(f"no 2xx: {body[:500].decode(errors='replace')}")
    if right is None or server.variant is None:
        return 0.0
    try:
        found = wire.decode(body)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise WrongAnswerError(f"{error!r} in {body[:300]!r}") from error
    if found.shape != right.shape:
        raise WrongAnswerError(f"expected {right.shape}, found {found.shape}")
    difference = float(np.abs(found - right).max())
    if not difference <= TOLERANCE[server.variant]:
        raise WrongAnswerError(
            f"differs by {difference:.2g} from the interpreter, {TOLERANCE[server.variant]:g} is allowed"
        )
    return difference


def together(server: Server, model: Model, port: int, batch: Floats, right: Floats | None) -> list[float]:
    """Each client asks for records of its own, one by one, all at once: an answer given to another client shows."""

    def client(number: int) -> list[float]:
        found = []
        with Connection(port) as connection:
            for index in list(range(number, min(len(batch), CLIENTS * ROUNDS), CLIENTS)):
                part = slice(index, index + 1)
                success, body = connection.fetch(request(server, model, port, server.json, batch[part]).raw())
                found.append(judge(server, server.json, success, body, right[part] if right is not None else None))
        return found

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        try:
            return [difference for part in pool.map(client, range(CLIENTS)) for difference in part]
        except BrokenAnswerError as error:
            raise WrongAnswerError(str(error)) from error

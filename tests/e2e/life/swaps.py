"""A new version again and again while clients take all that the server can give."""

import shutil
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import orjson

from tests.e2e.life.clients import Clients, Seen, post
from tests.e2e.process import Client, Litepool, poll

SETTINGS: dict[str, str | Path] = {"poll_seconds": "0.2", "settle_seconds": "0.2", "log_level": "warning"}
CONNECTIONS = 32


@dataclass
class OneVersion:
    """Each connection sends its own record over and over; the answer must be that times a whole number, the version.

    A connection belongs to one worker: on it versions must never go back.

    Args:
        path: of the model.
        width: of a record.
        first_seen: for each version when it answered for the first time, in seconds of `time.monotonic`.
    """

    path: str
    width: int
    first_seen: dict[int, float] = field(default_factory=dict)
    _known: dict[bytes, int] = field(default_factory=dict)
    _newest: dict[int, int] = field(default_factory=dict)
    _requests: dict[int, bytes] = field(default_factory=dict)

    def record(self, connection: int) -> list[float]:
        return [float(connection * 7 + place + 1) for place in range(self.width)]

    def request(self, connection: int) -> bytes:
        request = self._requests.get(connection)
        if request is None:
            body = orjson.dumps({"instance": self.record(connection)})
            request = self._requests[connection] = post(self.path, body)
        return request

    def fault(self, connection: int, good: bool, body: bytes) -> str:
        if not good:
            return f"refused: {body[:200].decode(errors='replace')}"
        version = self._known.get(body)
        if version is None:
            found = orjson.loads(body)["prediction"]
            record = self.record(connection)
            version = round(found[0] / record[0])
            if found != [value * version for value in record]:
                return f"the answer of no version: {found} to {record}"
            # An answer is one connection's alone: records are no multiples of each other.
            self._known[body] = version
            self.first_seen.setdefault(version, monotonic())
        newest = self._newest.get(connection, 0)
        if version < newest:
            return f"version {version} after version {newest} on one connection"
        self._newest[connection] = version
        return ""


@dataclass(frozen=True)
class Swaps:
    """Figures, and the faults.

    Args:
        versions: how many were put on disk, and of these
        served: how many answered.
        late_s: from the rename of a version to its first answer, the median and the most.
        p99_us: of each round without swaps, and of the one with swaps after it.
    """

    answered: int
    versions: int
    served: int
    late_s: tuple[float, float]
    quiet_p99_us: list[float]
    swaps_p99_us: list[float]
    rps: tuple[float, float]
    faults: list[str]

    @property
    def ratio(self) -> float:
        """p99 with swaps over p99 without, the median over pairs of rounds."""
        pairs = zip(self.quiet_p99_us, self.swaps_p99_us, strict=True)
        return statistics.median(swaps / quiet for quiet, swaps in pairs)


class Folder:
    """A model's folder, in which versions appear whole and the one before the last goes."""

    def __init__(self, folder: Path, make: Callable[[int], bytes]) -> None:
        self._folder = folder
        self._make = make
        self._ready: Path | None = None
        self.version = 0
        self.put_at: dict[int, float] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def prepare(self) -> None:
        """Write the next version where nobody looks."""
        hidden = self._folder / f".{self.version + 1}"
        hidden.mkdir()
        (hidden / "model.tflite").write_bytes(self._make(self.version + 1))
        self._ready = hidden

    def put(self) -> None:
        """Rename it into its place, and take away the version before the last."""
        if self._ready is None:
            self.prepare()
        assert self._ready is not None
        self.version += 1
        # Before it is there: an answer may come before this goes on.
        self.put_at[self.version] = monotonic()
        self._ready.rename(self._folder / str(self.version))
        self._ready = None
        old = self._folder / str(self.version - 2)
        if old.exists():
            gone = old.rename(self._folder / f".gone-{old.name}")
            shutil.rmtree(gone)


def swap(
    folder: Path,
    make: Callable[[int], bytes],
    width: int,
    *,
    rounds: int,
    swaps_each: int,
    every_s: float = 1.0,
) -> Swaps:
    """Serve a model with two workers, and swap it in every other of the rounds, which are equally long.

    Args:
        folder: an empty one.
        make: the model of a version, `y = x * version` of `width` values.
    """
    models = folder / "models"
    versions = Folder(models / "m", make)
    versions.put()
    settings = SETTINGS | {"cache_dir": folder / "cache"}
    quiet: list[tuple[float, float]] = []
    swapping: list[tuple[float, float]] = []
    with Litepool(models, "--workers", "2", settings=settings) as litepool:
        litepool.wait_ready()
        with Clients(litepool.url, OneVersion("/predict/m", width), CONNECTIONS) as clients:
            clients.wait_answered(2000)
            for _ in range(rounds):
                start = monotonic()
                sleep(swaps_each * every_s)
                quiet.append((start, monotonic()))
                swapping.append(_swap_for(versions, swaps_each, every_s))
                # What the last swap still does is no part of the quiet.
                sleep(2 * every_s)
            with litepool.client() as client:
                poll("the last version", lambda: _states(client).get(str(versions.version)) == "AVAILABLE")
            clients.wait_answered(2000)
    return _figures(clients.seen, versions, quiet, swapping)


def _states(client: Client) -> dict[str, str]:
    """Of each version of the model."""
    versions = client.get("/healthz").json()["models"]["m"]
    return {version: found["state"] for version, found in versions.items()}


def _swap_for(versions: Folder, count: int, every_s: float) -> tuple[float, float]:
    start = monotonic()
    for number in range(count):
        versions.put()
        versions.prepare()
        sleep(max(0.0, start + (number + 1) * every_s - monotonic()))
    return start, monotonic()


def _figures(
    seen: Seen, versions: Folder, quiet: list[tuple[float, float]], swapping: list[tuple[float, float]]
) -> Swaps:
    first_seen: dict[int, float] = seen.judge.first_seen
    faults = list(seen.faults)
    for version, at in first_seen.items():
        if at < versions.put_at.get(version, float("inf")):
            faults.append(f"version {version} answered before it was there")
    late = [at - versions.put_at[version] for version, at in first_seen.items() if version > 1]
    return Swaps(
        answered=seen.answered,
        versions=versions.version,
        served=len(first_seen),
        late_s=(statistics.median(late), max(late)),
        quiet_p99_us=[float(np.percentile(seen.between(*span), 99)) for span in quiet],
        swaps_p99_us=[float(np.percentile(seen.between(*span), 99)) for span in swapping],
        rps=(_rate(seen, quiet), _rate(seen, swapping)),
        faults=faults,
    )


def _rate(seen: Seen, spans: list[tuple[float, float]]) -> float:
    """Answers a second."""
    return sum(len(seen.between(*span)) for span in spans) / sum(end - start for start, end in spans)

"""A model unloaded and loaded again, many times: what that leaves behind."""

import statistics
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import psutil

from tests import tflite
from tests.e2e.life.models import heavy_multiplier
from tests.e2e.life.swaps import SETTINGS
from tests.e2e.process import Client, Litepool, poll
from tests.e2e.test_workers import connect_to_all

RECORD = {"instance": [1.0] * 64}


@dataclass(frozen=True)
class Reading:
    """What all processes of a server hold together, and how many there are of the rest.

    Args:
        own_mb: memory that is theirs alone (USS), which nobody else on the machine has a part in.
        pss_mb: that, and their share of what they have in common with others.
    """

    own_mb: float
    pss_mb: float
    processes: int
    threads: int
    descriptors: int


@dataclass(frozen=True)
class Reloads:
    """Figures, and the faults. `readings` has one after each so many reloads, the first after a warm-up."""

    reloads: int
    seconds: float
    readings: list[Reading]
    faults: list[str]

    def _quarter(self, last: bool) -> list[float]:
        size = max(len(self.readings) // 4, 1)
        some = self.readings[-size:] if last else self.readings[:size]
        return [reading.own_mb for reading in some]

    @property
    def growth_mb(self) -> float:
        """Their own memory in the last quarter of the readings less that in the first, medians."""
        return statistics.median(self._quarter(True)) - statistics.median(self._quarter(False))

    @property
    def noise_mb(self) -> float:
        """By how much readings within those quarters differ."""
        return max(max(some) - min(some) for some in (self._quarter(False), self._quarter(True)))


def read(processes: Sequence[psutil.Process]) -> Reading:
    """Of those that live."""
    own = pss = 0
    threads = descriptors = 0
    for process in processes:
        memory = process.memory_full_info()
        pss += memory.pss
        own += memory.uss
        threads += process.num_threads()
        descriptors += process.num_fds()
    return Reading(own / 1e6, pss / 1e6, len(processes), threads, descriptors)


def reload_often(folder: Path, times: int, every: int, warm_up: int) -> Reloads:
    """Serve two models with two workers; unload and load one, and use it in both workers each time.

    Args:
        folder: an empty one.
        every: reloads between readings.
        warm_up: reloads before the first one.
    """
    models = folder / "models"
    models.mkdir()
    (models / "m.tflite").write_bytes(heavy_multiplier(2))
    (models / "beside.tflite").write_bytes(tflite.affine())
    faults: list[str] = []
    readings: list[Reading] = []
    settings = SETTINGS | {"cache_dir": folder / "cache"}
    with Litepool(models, "--workers", "2", "--model-control", settings=settings) as litepool, ExitStack() as stack:
        litepool.wait_ready()
        workers = litepool.workers()
        clients = connect_to_all(litepool, workers, stack)
        start = monotonic()
        for number in range(1, warm_up + times + 1):
            faults += _reload(clients, number)
            if number == warm_up:
                for client in clients:
                    # What was counted is in files from the first flush on, which may not have come yet.
                    client.send("GET", "/metrics")
            if number >= warm_up and not (number - warm_up) % every:
                readings.append(read(_settled(litepool)))
        seconds = monotonic() - start
        if litepool.workers() != workers:
            faults.append(f"workers died:\n{litepool.log.text()}")
    return Reloads(times, seconds, readings, faults)


def _reload(clients: Sequence[Client], number: int) -> list[str]:
    """Unload and load by one worker, another each time; what is wrong then in any of them."""
    faults = []
    one = clients[number % len(clients)]
    for do, statuses, wanted in (("unload", {503}, None), ("load", {200}, [2.0] * 64)):
        reply = one.send("POST", f"/models/m/{do}")
        if reply.status != 200:
            faults.append(f"{do}: {reply.status} {reply.body[:200]!r}")
        for client in clients:
            answer = client.post("/predict/m", RECORD)
            if answer.status not in statuses or answer.json().get("prediction") != wanted:
                faults.append(f"after {do} a worker answers {answer.status} {answer.body[:200]!r}")
    return faults


def _settled(litepool: Litepool) -> list[psutil.Process]:
    """All processes of a server, once those that come and go are gone."""
    root = psutil.Process(litepool.pid)

    def lasting() -> list[psutil.Process]:
        found = [root, *root.children(recursive=True)]
        # The child in which models are opened leaves when nothing was asked of it for a while; what it forks, at once.
        return found if len(found) <= 1 + 2 + 2 else []

    return poll("the children of loading to end", lasting)

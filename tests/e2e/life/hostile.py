"""Files that are no models, are damaged, or mean harm, put beside a good model that is busy."""

import io
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from tests import tflite
from tests.e2e.life.clients import Clients
from tests.e2e.life.models import multiplier
from tests.e2e.life.swaps import SETTINGS, OneVersion
from tests.e2e.process import Client, Litepool, poll
from tests.e2e.test_workers import connect_to_all

CONNECTIONS = 8
GOOD = 3
"""The good model's version, by which it multiplies."""

FLIPS_AT_ONCE = 20
ENDS = ("AVAILABLE", "FAILED")

Put = Callable[[Path, str], None]
"""Puts something into the models folder, under a name."""


@dataclass(frozen=True)
class Threat:
    """Args:
    reason: a part of what /healthz must say of it; None where it may as well be served.
    """

    name: str
    put: Put
    reason: str | None


def _file(make: Callable[[], bytes], suffix: str = ".tflite") -> Put:
    def put(models: Path, name: str) -> None:
        # Whole or not at all, as a careful copier does: what a careless one does is another test.
        part = models / f".{name}"
        part.write_bytes(make())
        part.rename(models / f"{name}{suffix}")

    return put


def _beside(file: str, content: Callable[[], bytes]) -> Put:
    """A good model with a bad file beside it."""

    def put(models: Path, name: str) -> None:
        part = models / f".{name}"
        part.mkdir()
        (part / "model.tflite").write_bytes(tflite.affine())
        (part / file).write_bytes(content())
        part.rename(models / name)

    return put


def _sparse(size: int, begin: bytes) -> Put:
    def put(models: Path, name: str) -> None:
        part = models / f".{name}"
        part.write_bytes(begin)
        os.truncate(part, size)
        part.rename(models / f"{name}.tflite")

    return put


def _loop_of_links(models: Path, name: str) -> None:
    (models / f"{name}.tflite").symlink_to(f"{name}.tflite")


def _folder_in_itself(models: Path, name: str) -> None:
    (models / name).mkdir()
    (models / name / "1").symlink_to("..")


def _bomb_of_keras() -> bytes:
    """256 MB of zeros in a quarter of one, which say that they are a model's weights."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional"}))
        with archive.open("model.weights.h5", "w") as member:
            for _ in range(256):
                member.write(bytes(1 << 20))
    return body.getvalue()


def _damaged(make: Callable[[], bytes], seed: int) -> Put:
    return _file(lambda: flipped(make(), seed))


def flipped(model: bytes, seed: int) -> bytes:
    """A model with one bit turned over, where the seed says."""
    found = bytearray(model)
    (place,) = np.random.default_rng(seed).integers(0, 8 * len(model), 1)
    found[place >> 3] ^= 1 << (place & 7)
    return bytes(found)


def flip_of(seed: int) -> bytes:
    """One of the models that are damaged: which one, and where, hangs on the seed."""
    makers = (tflite.affine, tflite.two_in_two_out, tflite.maximum_over_batch, tflite.picky_inner, tflite.running_sum)
    return flipped(makers[seed % len(makers)](), seed)


THREATS: Sequence[Threat] = (
    Threat("truncated", _file(lambda: tflite.truncated(tflite.affine())), "the file is damaged"),
    Threat("empty", _file(lambda: b""), "an empty file"),
    Threat("words", _file(lambda: b"I am a model. " * 100), "is no TFLite model"),
    Threat("never-runs", _file(tflite.never_runs), ""),
    Threat("bomb", _file(lambda: tflite.bomb(3_000)), ""),
    Threat("sparse", _sparse(2 << 30, b""), "is no TFLite model"),
    Threat("sparse-model", _sparse(2 << 30, tflite.affine()), "2,147,483,648 bytes"),
    Threat("folder", lambda models, name: (models / f"{name}.tflite").mkdir(), "found none"),
    Threat("pipe", lambda models, name: os.mkfifo(models / f"{name}.tflite"), "is no file"),
    Threat("loop", _loop_of_links, ""),
    Threat("inside-itself", _folder_in_itself, "found none"),
    Threat("large-config", _beside("model.toml", lambda: b"# much\n" * (1 << 20)), "larger than 4 MiB"),
    Threat("deep-config", _beside("model.toml", lambda: b"labels = " + b"[" * 100_000), "model.toml"),
    Threat("bad-samples", _beside("samples.json", lambda: b'[{"request": '), "samples.json"),
    Threat("deep-samples", _beside("samples.json", lambda: b"[" * 1_000_000), "samples.json"),
    Threat("zip-bomb", _file(_bomb_of_keras, ".keras"), "it would unpack to 256 MiB"),
    # Found by turning over bits. The first two crash LiteRT wherever they are opened; the others some of the time, and
    # the first of these passed its trial once, and then crashed a worker.
    Threat("sizes", _damaged(tflite.running_sum, 1075), "crashes the interpreter"),
    Threat("sizes-too", _damaged(tflite.running_sum, 1804), "crashes the interpreter"),
    Threat("operands", _damaged(tflite.running_sum, 1793), "ASSIGN_VARIABLE, has 1 inputs"),
    Threat("operands-too", _damaged(tflite.running_sum, 2072), "READ_VARIABLE, has 0 inputs"),
    Threat("no-zip", _file(lambda: b"PK\x03\x04" + bytes(1000), ".keras"), "cut short"),
)


@dataclass(frozen=True)
class Harm:
    """Figures, and the faults.

    Args:
        threats: how many were put there, and
        flips: how many of these were models with a bit turned over; of which some still
        served: as models.
        crashed: how many crashed the child in which they were opened.
        asked: requests sent to the damaged models that were served.
        most_ms: the longest that a request to the good model took.
    """

    answered: int
    threats: int
    flips: int
    served: int
    crashed: int
    asked: int
    most_ms: float
    seconds: float
    faults: list[str]


class _Siege:
    """The server under attack, seen from a connection to each of its workers."""

    def __init__(self, litepool: Litepool, models: Path, clients: list[Client]) -> None:
        self._litepool = litepool
        self._models = models
        self._clients = clients
        self.faults: list[str] = []
        self.lookers = len(clients)
        self.served = self.crashed = self.asked = 0

    def lay(self, threats: Sequence[Threat]) -> None:
        """Put some there at once, wait until it is known in every worker what they are, and take them away."""
        for threat in threats:
            threat.put(self._models, threat.name)
        names = [threat.name for threat in threats]
        for client in self._clients:
            found = poll(f"an end of {names}", lambda client=client: self._ends(client, names))  # type: ignore[misc]
            assert found is not None
            for threat in threats:
                self._judge(client, threat, found[threat.name])
        for threat in threats:
            for path in self._models.glob(f"{threat.name}*"):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink()

    def _ends(self, client: Client, names: Sequence[str]) -> dict[str, Any] | None:
        """What /healthz says of each of them, once that is final."""
        models = client.get("/healthz").json()["models"]
        # What a folder ends in is part of its name.
        found = {name: models.get(name) or models.get(f"{name}.tflite") or {"": {"state": ""}} for name in names}
        found = {name: next(iter(versions.values())) for name, versions in found.items()}
        return found if all(state["state"] in ENDS for state in found.values()) else None

    def _judge(self, client: Client, threat: Threat, found: dict[str, str]) -> None:
        if found["state"] == "AVAILABLE":
            self.served += 1
            if threat.reason is not None:
                self.faults.append(f"{threat.name} is served")
            self._ask(client, threat.name)
            return
        self.crashed += "crashes the interpreter" in found["reason"]
        if not found["reason"] or (threat.reason or "") not in found["reason"]:
            self.faults.append(f"{threat.name} failed with {found['reason']!r}, and not with {threat.reason!r}")
        if "nobody foresaw" in found["reason"]:
            self.faults.append(f"{threat.name}: {found['reason']}")

    def _ask(self, client: Client, name: str) -> None:
        """Whatever a damaged model answers, it must answer, and its worker live."""
        for rows in (1, 2, 33):
            for value in ("0", "3e38", "-1e-40", "NaN"):
                record = "[" + ", ".join([value] * 4) + "]"
                body = '{"instances": [' + ", ".join([record] * rows) + "]}"
                reply = client.send("POST", f"/predict/{name}", body.encode(), {"Content-Type": "application/json"})
                self.asked += 1
                if reply.status not in (200, 400, 500):
                    self.faults.append(f"{name} answers {reply.status}: {reply.body[:200]!r}")


def besiege(folder: Path, threats: Sequence[Threat], flips: int) -> Harm:
    """Serve a good model with two workers, keep it busy, and put the threats there one after another, then `flips`
    models with a bit turned over, some at a time.

    Args:
        folder: an empty one.
    """
    models = folder / "models"
    (models / "good" / str(GOOD)).mkdir(parents=True)
    (models / "good" / str(GOOD) / "model.tflite").write_bytes(multiplier(GOOD))
    settings = SETTINGS | {"cache_dir": folder / "cache", "settle_seconds": "0", "log_level": "error"}
    start = monotonic()
    with Litepool(models, "--workers", "2", settings=settings) as litepool, ExitStack() as stack:
        litepool.wait_ready()
        workers = litepool.workers()
        with Clients(litepool.url, OneVersion("/predict/good", 4), CONNECTIONS) as clients:
            siege = _Siege(litepool, models, connect_to_all(litepool, workers, stack))
            for threat in threats:
                siege.lay([threat])
            for first in range(0, flips, FLIPS_AT_ONCE):
                some = range(first, min(flips, first + FLIPS_AT_ONCE))
                siege.lay([Threat(f"flip-{seed}", _file(lambda seed=seed: flip_of(seed)), None) for seed in some])  # type: ignore[misc]
            clients.wait_answered(1000)
        seen = clients.seen
        faults = siege.faults + seen.faults
        if litepool.workers() != workers:
            faults.append(f"workers died:\n{litepool.log.text()}")
        if set(seen.judge.first_seen) != {GOOD}:
            faults.append(f"the good model answered as {sorted(seen.judge.first_seen)}")
    return Harm(
        seen.answered,
        len(threats) + flips,
        flips,
        siege.served // siege.lookers,
        siege.crashed // siege.lookers,
        siege.asked,
        float(seen.took_us.max()) / 1000,
        monotonic() - start,
        faults,
    )

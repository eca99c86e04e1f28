"""One real server with two workers for all clients, and what became of each call of each client program."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.clients import models
from tests.clients.programs import Program
from tests.e2e.process import Litepool

Outcomes = Callable[[Program], dict[str, str | None]]


@dataclass(frozen=True)
class Served:
    """A server under test and where it is reached: `host:port` of HTTP and of gRPC."""

    litepool: Litepool
    http: str
    grpc: str


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "models").mkdir()
    arguments: list[str | Path] = [models.write(folder / "models"), "--grpc-port", "0", "--workers", "2"]
    settings: dict[str, str | Path] = {"cache_dir": folder / "cache", "settle_seconds": "0"}
    with Litepool(*arguments, "--model-control", settings=settings) as litepool:
        litepool.wait_ready()
        grpc = litepool.out.wait_for(r" and grpc://([^\s:]+:\d+): ")[1]
        yield Served(litepool, urlsplit(litepool.url).netloc, grpc)


@pytest.fixture(scope="session")
def outcomes(served: Served) -> Outcomes:
    """Runs a client program, once, and gives what became of each of its calls."""
    return cache(lambda program: program.run(served.http, served.grpc))

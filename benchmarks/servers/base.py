"""What the benchmark has to know of a server."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.models import Model
from benchmarks.paths import ROOT
from benchmarks.wire import Wire

WORKERS = 2


@dataclasses.dataclass(frozen=True)
class Launch:
    """One start of a server: the port it must listen on at 127.0.0.1, the model, and two folders that it may write to.

    `folder` is kept, with the server's log; `scratch` goes when the server stops, and its path is short enough for
    the sockets that some servers put there.
    """

    port: int
    model: Model
    folder: Path
    scratch: Path


@dataclasses.dataclass(frozen=True)
class Server:
    """How to start one kind of server, ask it and judge it.

    `prepare` is called once before anything is measured and may be slow (it makes an environment). `variant` is the
    TFLite file that its answers are held against; None for the floor, which answers without a model. `health` is the
    path that must answer before the server counts as started.
    """

    name: str
    title: str
    group: str
    about: str
    command: Callable[[Launch], list[str]]
    path: Callable[[Model], str]
    json: Wire
    npy: Wire | None = None
    variant: str | None = "float32"
    env: Callable[[Launch], Mapping[str, str]] = lambda _launch: {}
    prepare: Callable[[], None] = lambda: None
    versions: Callable[[], dict[str, str]] = dict
    cwd: Path = ROOT
    health: str | None = None
    start_limit: float = 120


def predict(_model: Model) -> str:
    return "/predict"

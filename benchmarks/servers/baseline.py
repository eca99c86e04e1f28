"""What Litepool is compared with on every machine: the least a web server costs, and what people write first."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping

from benchmarks.servers.base import WORKERS, Launch, Server, predict
from benchmarks.wire import Instances, Npy

UVICORN = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
BARE = ("--no-server-header", "--no-date-header")


def uvicorn(app: str, launch: Launch, *options: str) -> list[str]:
    base = [sys.executable, "-m", "uvicorn", app, "--host", "127.0.0.1", "--port", str(launch.port)]
    return [*base, "--workers", str(WORKERS), *UVICORN, *options]


def floor(launch: Launch) -> list[str]:
    return uvicorn("benchmarks.servers.apps.floor:app", launch, "--lifespan", "off", *BARE)


def floor_sized(launch: Launch) -> list[str]:
    return uvicorn("benchmarks.servers.apps.floor_sized:app", launch, *BARE)


def naive(launch: Launch) -> list[str]:
    return uvicorn("benchmarks.servers.apps.naive:app", launch)


def keras_app(launch: Launch) -> list[str]:
    return uvicorn("benchmarks.servers.apps.keras_app:app", launch)


def model_env(launch: Launch) -> Mapping[str, str]:
    """Read by the apps, which are not told by arguments because uvicorn imports them."""
    return {
        "BENCH_TFLITE": str(launch.model.tflite("float32")),
        "BENCH_KERAS": str(launch.model.keras),
        "BENCH_RANK": str(len(launch.model.record)),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


FLOOR = Server(
    name="floor",
    title="Floor: empty ASGI app",
    group="floor",
    about="a raw ASGI app under uvicorn that reads the body and answers fixed bytes",
    command=floor,
    path=predict,
    json=Instances(),
    npy=Npy(),
    variant=None,
)
# For the wire formats: answers as many bytes as its path says, and gRPC on the next port.
FLOOR_SIZED = dataclasses.replace(
    FLOOR,
    title="Floor",
    about="a raw ASGI app under uvicorn and a raw grpc.aio handler that read the body and answer fixed bytes",
    command=floor_sized,
    env=lambda launch: {"BENCH_GRPC_PORT": str(launch.port + 1)},
    path=lambda _model: "/answer/400",
)
NAIVE = Server(
    name="naive",
    title="FastAPI + TFLite",
    group="baseline",
    about="FastAPI, pydantic body and answer, one TFLite interpreter behind a lock",
    command=naive,
    path=predict,
    json=Instances(),
    env=model_env,
)
KERAS_CALL = Server(
    name="keras-call",
    title="FastAPI + model(x)",
    group="baseline",
    about="FastAPI, pydantic body and answer, Keras `model(x, training=False)`",
    command=keras_app,
    path=predict,
    json=Instances(),
    env=lambda launch: {**model_env(launch), "BENCH_CALL": "call"},
)
KERAS_PREDICT = Server(
    name="keras-predict",
    title="FastAPI + model.predict()",
    group="baseline",
    about="FastAPI, pydantic body and answer, Keras `model.predict(x)`",
    command=keras_app,
    path=predict,
    json=Instances(),
    env=lambda launch: {**model_env(launch), "BENCH_CALL": "predict"},
)

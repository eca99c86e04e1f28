"""Litepool as its users start it: by uvicorn alone, and by `litepool serve` with float32 and with int8 weights."""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.models import CONV, MLP, Model
from benchmarks.paths import CACHE
from benchmarks.servers.base import WORKERS, Launch, Server
from benchmarks.servers.baseline import uvicorn
from benchmarks.wire import Instances, Npy

LITEPOOL = Path(sys.executable).with_name("litepool")


def models_dir(launch: Launch, *models: Model, quantization: str = "none") -> Path:
    """A folder with one folder for each model, written anew."""
    folder = launch.folder / "models"
    shutil.rmtree(folder, ignore_errors=True)
    for model in models or (launch.model,):
        (folder / model.name).mkdir(parents=True)
        shutil.copy(model.keras, folder / model.name / model.keras.name)
        (folder / model.name / "model.toml").write_text(f'quantization = "{quantization}"\n')
    return folder


def settings(_launch: Launch) -> Mapping[str, str]:
    """Conversions are kept, so that a start is that of a server which has seen the model before."""
    return {"LITEPOOL_CACHE_DIR": str(CACHE / "litepool"), "LITEPOOL_LOG_LEVEL": "warning"}


def serve(folder: Path, port: int) -> list[str]:
    return [str(LITEPOOL), "serve", str(folder), "--port", str(port), "--workers", str(WORKERS)]


def path(model: Model) -> str:
    return f"/predict/{model.name}"


ASGI = Server(
    name="litepool-asgi",
    title="Litepool by ASGI",
    group="ours",
    about="`uvicorn app.main:app`: Litepool as a plain ASGI app, without its express lane",
    command=lambda launch: uvicorn("app.main:app", launch),
    env=lambda launch: {**settings(launch), "LITEPOOL_MODELS_DIR": str(models_dir(launch))},
    path=path,
    json=Instances(),
    npy=Npy(),
    health="/healthz",
    start_limit=300,
)
EXPRESS = Server(
    name="litepool",
    title="Litepool",
    group="ours",
    about="`litepool serve`, float32",
    command=lambda launch: serve(models_dir(launch), launch.port),
    env=settings,
    path=path,
    json=Instances(),
    npy=Npy(),
    health="/healthz",
    start_limit=300,
)
EXPRESS_INT8 = Server(
    name="litepool-int8",
    title="Litepool, int8 weights",
    group="ours",
    about='`litepool serve`, `quantization = "dynamic"`: int8 weights, the rest float32',
    command=lambda launch: serve(models_dir(launch, quantization="dynamic"), launch.port),
    env=settings,
    path=path,
    json=Instances(),
    npy=Npy(),
    variant="int8",
    health="/healthz",
    start_limit=300,
)
# Both models in one server: how a slow one disturbs a fast one.
EXPRESS_BOTH = dataclasses.replace(
    EXPRESS, name="litepool-both", command=lambda launch: serve(models_dir(launch, MLP, CONV), launch.port)
)
# For the wire formats: gRPC on the next port.
EXPRESS_GRPC = dataclasses.replace(
    EXPRESS,
    about="`litepool serve --grpc-port`, float32",
    command=lambda launch: [*serve(models_dir(launch), launch.port), "--grpc-port", str(launch.port + 1)],
)

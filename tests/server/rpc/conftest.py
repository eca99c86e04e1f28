"""One application with models of every kind, served by gRPC on both roads."""

from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import tflite
from tests.server.inprocess import InProcess
from tests.server.rpc.served import LANE, PLAIN, Rpc, serving


def write_models(folder: Path) -> Path:
    """`affine` has versions 1 and 2 and the label `stable`; `state` sums what it is given."""
    for version in ("1", "2"):
        (folder / "affine" / version).mkdir(parents=True)
        (folder / "affine" / version / "affine.tflite").write_bytes(tflite.affine())
    (folder / "affine" / "model.toml").write_text("[versions]\nlatest = 2\n[labels]\nstable = 1\n")
    (folder / "state.tflite").write_bytes(tflite.running_sum())
    (folder / "two.tflite").write_bytes(tflite.two_signatures())
    (folder / "both.tflite").write_bytes(_both())
    return folder


def _both() -> bytes:
    """`value`: `y = 2x + 1`, [-1, 1]; `scores`: `s = [x, x, x]`, [-1, 3]."""
    graph = tflite.Graph()
    x, scaled, y = (graph.tensor(name, (-1, 1)) for name in ("x", "scaled", "y"))
    graph.operator("MUL", [x, graph.constant(2.0)], [scaled])
    graph.operator("ADD", [scaled, graph.constant(1.0)], [y])
    other = graph.subgraph()
    x_too, s = other.tensor("x", (-1, 1)), other.tensor("s", (-1, 3))
    other.operator("ADD", [x_too, other.constant(np.zeros((1, 3)))], [s])
    return graph.build_several({"value": (0, {"x": x}, {"y": y}), "scores": (1, {"x": x_too}, {"s": s})})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models'."""
    return write_models(tmp_path_factory.mktemp("rpc") / "models")


@pytest.fixture(scope="module")
def application(folder: Path) -> Iterator[InProcess]:
    with InProcess(folder, model_control=True) as served:
        yield served


@pytest.fixture(scope="module", params=[LANE, PLAIN])
def rpc(application: InProcess, folder: Path, request: Any) -> Iterator[Rpc]:
    stack = AsyncExitStack()
    yield application.run(stack.enter_async_context(serving(application, request.param, folder, model_control=True)))
    application.run(stack.aclose())

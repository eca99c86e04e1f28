"""Folders of small models, and applications that serve them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tflite
from tests.server.inprocess import InProcess

HOSTILE = "<script>alert('description')</script> & <b>bold</b>"

PAIR_SAMPLES = [
    {
        "about": "three and four",
        "request": {"instance": {"left": [1, 2, 3], "right": [4, 5, 6]}},
        "answer": {"prediction": {"total": [21], "difference": [-3, -3, -3]}},
    },
    {"about": "two records", "request": {"instances": [{"left": [1, 1, 1], "right": [0, 0, 0]}] * 2}},
]


def write_good(folder: Path) -> Path:
    """Fill a folder with one model of each kind; `affine` is y = 2x + 1 for records of 4."""
    folder.mkdir(parents=True)
    (folder / "affine.tflite").write_bytes(tflite.affine())
    (folder / "pair").mkdir()
    (folder / "pair" / "pair.tflite").write_bytes(tflite.two_in_two_out())
    (folder / "pair" / "model.toml").write_text(f"description = {json.dumps(HOSTILE)}\n")
    (folder / "pair" / "samples.json").write_text(json.dumps(PAIR_SAMPLES))
    (folder / "lookup.tflite").write_bytes(tflite.lookup())
    (folder / "inner.tflite").write_bytes(tflite.free_inner())
    (folder / "one.tflite").write_bytes(tflite.fixed_one())
    (folder / "whole.tflite").write_bytes(tflite.whole())
    (folder / "scalar.tflite").write_bytes(tflite.scalar_records())
    (folder / "bool.tflite").write_bytes(tflite.identity("bool"))
    (folder / "int8.tflite").write_bytes(tflite.identity("int8"))
    (folder / "double.tflite").write_bytes(tflite.identity("float64"))
    (folder / "state.tflite").write_bytes(tflite.running_sum())
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_cache_for_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """To open a model takes a process, and most of these tests are of the same few: as a server that starts again does,
    they find what was found before."""
    InProcess.cache_dir = tmp_path_factory.mktemp("cache")
    yield
    InProcess.cache_dir = None


@pytest.fixture(scope="session")
def good_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_good(tmp_path_factory.mktemp("good") / "models")


@pytest.fixture
def one_model(tmp_path: Path) -> Path:
    """A folder with `affine` alone."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "affine.tflite").write_bytes(tflite.affine())
    return folder


@pytest.fixture(scope="module")
def good(good_models: Path) -> Iterator[InProcess]:
    """An application whose models are all well; small bodies only."""
    with InProcess(good_models, default_model="affine", max_body_bytes=4096) as served:
        yield served


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    """An application with a good model, a broken one, and a folder whose name is no model's."""
    folder = tmp_path_factory.mktemp("mixed") / "models"
    folder.mkdir()
    (folder / "affine.tflite").write_bytes(tflite.affine())
    (folder / "broken.tflite").write_bytes(tflite.truncated(tflite.affine()))
    (folder / "<img src=x onerror=alert(1)>").mkdir()
    with InProcess(folder, default_model="affine") as served:
        yield served

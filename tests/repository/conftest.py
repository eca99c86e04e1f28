"""Models made by Keras and TensorFlow, and what came of converting each: made once for all slow tests."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from app.errors import ModelError
from app.repository.cache import Cache
from app.repository.convert import Converter
from app.repository.layout import source_of
from app.repository.loader import Opened, open_model
from app.runtime import batching
from app.runtime.engine import Engine
from app.tensors import Array
from tests.repository import stand_in

PROGRAM = Path(__file__).with_name("keras_models.py")
SETTINGS = {
    "float16": 'quantization = "float16"',
    "dynamic": 'quantization = "dynamic"',
    "strict": 'quantization = "dynamic"\ntolerance = 1e-12',
}


@dataclass
class Outcome:
    """What opening one model came to: `opened`, or `error`."""

    path: Path
    opened: Opened | None = None
    error: str = ""
    stages: list[str] = field(default_factory=list)

    def answers(self) -> tuple[dict[str, Array], dict[str, Array]]:
        """LiteRT's answers to inputs that the conversion never saw, and TensorFlow's, by name."""
        assert self.opened is not None, self.error
        signature = self.opened.signature
        with np.load(f"{self.path}.npz", allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in arrays}
        inputs = [kept.pop(f"in {spec.name}").astype(spec.dtype) for spec in signature.inputs]
        found = batching.run(
            self.opened.make_runner(), self.opened.default.contract.batching, inputs, inputs[0].shape[0]
        )
        wanted = {name.removeprefix("out "): value for name, value in kept.items()}
        return dict(zip([spec.name for spec in signature.outputs], found, strict=True)), wanted


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that keras_models.py fills."""
    folder = tmp_path_factory.mktemp("models")
    made = subprocess.run(
        [sys.executable, str(PROGRAM), folder], capture_output=True, text=True, timeout=600, check=False
    )
    assert made.returncode == 0, made.stderr
    for name, text in SETTINGS.items():
        (folder / "good" / name / "model.toml").write_text(text)
    (folder / "bad" / "damaged").mkdir()
    (folder / "bad" / "damaged" / "saved_model.pb").write_bytes(b"\xff" * 100)
    for mark in (folder / "marks").iterdir():
        mark.unlink()
    return folder


@pytest.fixture(scope="session")
def outcome(workshop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Outcome]]:
    """By its place in the workshop, what came of a model. All are converted at once: each is mostly one core's work."""
    converter = Converter(Cache(tmp_path_factory.mktemp("cache")), stand_in.trial(), 600, 16 << 30)
    places = [path for part in ("good", "bad") for path in (workshop / part).iterdir() if path.suffix != ".npz"]
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda path: open_one(path, converter), sorted(places)))
    by_place = {str(one.path.relative_to(workshop)): one for one in found}
    yield lambda place: by_place[place]
    for one in found:
        if one.opened is not None and isinstance(one.opened.model, Engine):
            one.opened.model.close()


def open_one(path: Path, converter: Converter) -> Outcome:
    outcome = Outcome(path)
    try:
        outcome.opened = open_model(source_of(path), converter, outcome.stages.append)
    except ModelError as error:
        outcome.error = error.message
    return outcome

"""Programs that stand in for the conversion child, or are the child itself but for a piece."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.repository import convert
from app.repository.cache import Cache
from app.repository.convert import Converter
from app.repository.layout import Kind, Source
from app.repository.trial import Trial
from tests import tflite

HEAD = """
import json, os, shutil, signal, sys
from pathlib import Path

request = json.loads(sys.stdin.readline())
out = Path(request["out"])
made = Path({made!r})

def say(**message):
    print(json.dumps(message), flush=True)

def ask(variant, model="model.tflite", rung="plain", signatures={signatures!r}):
    file = f"{{variant}}-1.tflite"
    shutil.copyfile(made / model, out / file)
    shutil.copyfile(made / "parity.npz", out / "parity.npz")
    say(candidate=dict(file=file, variant=variant, rung=rung, note="", signatures=signatures))
    return json.loads(sys.stdin.readline())

def done(**report):
    variants = {{}}
    for variant in request["variants"]:
        answer = ask(variant)
        variants[variant] = dict() if answer["ok"] else dict(error=answer["reason"])
    say(report={report!r} | dict(variants=variants) | report)

"""

SIGNATURES = [
    {
        "name": "serving_default",
        "number": 0,
        "inputs": ["x"],
        "outputs": ["y"],
        "random": False,
        "rows": 16,
        "samples": 0,
        "loud": 0,
    }
]

REPORT: dict[str, Any] = {
    "tensorflow": "2.21.0",
    "keras": "3.15.1",
    "signatures": SIGNATURES,
    "signatures_left_out": {},
    "calibrated_with": None,
    "seconds": {"importing": 3.5, "converting": 1},
    "timings_us": {"call": 1800.0, "predict": 46000.0},
}


class _Shared(Trial):
    """Outlives the converters of single tests: starting one takes half a second."""

    def close(self) -> None:
        pass


@cache
def trial() -> Trial:
    """The one of all tests that do not say otherwise. What it has found of a model it remembers."""
    folder = Path(tempfile.mkdtemp())
    shared = _Shared(Cache(folder), 60.0, 4 << 30)
    atexit.register(shutil.rmtree, folder)
    atexit.register(Trial.close, shared)
    return shared


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> None:
    """From now on `body` is what a converter starts; it has `request`, `out`, `say`, `ask` and `done`.

    What it converts everything to is in the folder `made`: a model `y = 2x + 1`, with the answers of that.
    """
    made = folder / "made"
    if not made.exists():
        made.mkdir()
        (made / "model.tflite").write_bytes(tflite.affine())
        inputs = np.arange(64, dtype=np.float32).reshape(16, 4)
        np.savez(made / "parity.npz", allow_pickle=False, in_0_0=inputs, out_0_0=2 * inputs + 1)
    program = folder / "stand_in_child.py"
    program.write_text(HEAD.format(made=str(made), signatures=SIGNATURES, report=REPORT) + body)
    monkeypatch.setattr(convert, "_CHILD", program)
    monkeypatch.setattr(convert, "installed_tensorflow", lambda: "2.21.0")


def alter(monkeypatch: pytest.MonkeyPatch, folder: Path, changes: dict[str, str]) -> None:
    """From now on a converter starts the conversion child itself, with pieces of child_conversion.py replaced."""
    child = folder / "altered_child"
    shutil.copytree(convert._CHILD, child, ignore=shutil.ignore_patterns("__pycache__"))
    program = child / "child_conversion.py"
    text = program.read_text(encoding="utf-8")
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    program.write_text(text, encoding="utf-8")
    monkeypatch.setattr(convert, "_CHILD", child)


def converter(folder: Path, timeout: float = 300.0, memory: int = 1 << 32) -> Converter:
    return Converter(Cache(folder / "cache"), trial(), timeout, memory)


def model(folder: Path, name: str = "m", content: bytes = b"a model") -> Source:
    """A file that only a stand-in will take for a model."""
    path = folder / f"{name}.keras"
    path.write_bytes(content)
    return Source(name, 1, Kind.KERAS, path, None)


def install_affine(
    monkeypatch: pytest.MonkeyPatch, folder: Path, before: str = "", content: bytes | None = None
) -> None:
    """The child makes `y = 2x + 1` of every model, or `content`, with the answers of the first; `before` runs first."""
    install(monkeypatch, folder, f"{before}\ndone()")
    if content is not None:
        (folder / "made" / "model.tflite").write_bytes(content)

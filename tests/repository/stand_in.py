"""Programs that stand in for the conversion child, or are the child itself but for a piece."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from app.repository import convert
from app.repository.cache import Cache
from app.repository.convert import Converter
from app.repository.layout import Kind, Source
from tests import tflite

HEAD = """
import json, os, signal, sys
from pathlib import Path

request = json.load(sys.stdin)
out = Path(request["out"])

def say(**message):
    print(json.dumps(message), flush=True)

def done(**report):
    (out / "model.tflite").write_bytes(b"model")
    (out / "parity.npz").write_bytes(b"answers")
    say(report=report)

"""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str) -> None:
    """From now on `body` is what a converter starts; it has `request`, `out`, `say` and `done`."""
    program = folder / "stand_in_child.py"
    program.write_text(HEAD + body)
    monkeypatch.setattr(convert, "_CHILD", program)


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


def converter(folder: Path, timeout: float = 60.0, memory: int = 1 << 32) -> Converter:
    return Converter(Cache(folder / "cache"), timeout, memory)


def model(folder: Path, name: str = "m", content: bytes = b"a model") -> Source:
    """A file that only a stand-in will take for a model."""
    path = folder / f"{name}.keras"
    path.write_bytes(content)
    return Source(name, 1, Kind.KERAS, path, None)


REPORT = {
    "tensorflow": "2.21.0",
    "keras": "3.15.1",
    "bytes": 1,
    "inputs": ["x"],
    "outputs": ["y"],
    "seconds": {"importing": 3.5, "converting": 1},
    "timings_us": {"call": 1800.0, "predict": 46000.0},
}


def install_affine(
    monkeypatch: pytest.MonkeyPatch, folder: Path, before: str = "", content: bytes | None = None
) -> None:
    """The child makes `y = 2x + 1` of every model, or `content`, with the answers of the first; `before` runs first."""
    monkeypatch.setattr(convert, "installed_tensorflow", lambda: "2.21.0")
    made = folder / "made"
    made.mkdir()
    inputs = np.arange(64, dtype=np.float32).reshape(16, 4)
    (made / "model.tflite").write_bytes(content or tflite.affine())
    np.savez(made / "parity.npz", allow_pickle=False, in_0=inputs, out_0=2 * inputs + 1)
    copy = f"import shutil\nshutil.copytree({str(made)!r}, out, dirs_exist_ok=True)\nsay(report={REPORT!r})"
    install(monkeypatch, folder, f"{before}\n{copy}")

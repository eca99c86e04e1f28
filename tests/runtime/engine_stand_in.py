"""A program that stands in for TensorFlow's process: its own server, with a few lines of NumPy for the model."""

from pathlib import Path

import pytest

from app.runtime import engine_process

HEAD = f"""
import os, signal, sys, threading
import numpy as np

sys.path.insert(0, {str(engine_process._CHILD.parent)!r})
import child_server

HERE = {{here!r}}

class Model:
    description = {{{{
        "signature": "serving_default",
        "inputs": [["x", "float32", [-1, 2]]],
        "outputs": [["y", "float32", [-1, 2]], ["pid", "int64", [-1]]],
        "stateful": False,
    }}}}

    def runner(self):
        return self

    def run(self, x):
        return x * 2

    def invoke(self, inputs):
        (x,) = inputs
        return [self.run(x), np.full(len(x), os.getpid())]

model = Model()

def load(request):
    return model
"""
TAIL = """
child_server.load = load
child_server.main()
"""


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, body: str = "") -> None:
    """From now on `body` after `HEAD`, whose names it may define anew, is what an engine starts."""
    program = folder / "stand_in_server.py"
    program.write_text(HEAD.format(here=str(folder)) + body + TAIL)
    monkeypatch.setattr(engine_process, "_CHILD", program)

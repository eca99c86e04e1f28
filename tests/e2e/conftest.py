"""What every end-to-end test needs: the shipped models converted once, and TensorFlow's answers computed once."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e import reference as reference_program
from tests.e2e.process import LITEPOOL, MODELS, PATIENCE, ROOT, environment
from tests.e2e.reference import Reference


@pytest.fixture(scope="session")
def _prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The cache and the file of answers, made side by side: each is mostly one core's work."""
    folder = tmp_path_factory.mktemp("prepared")
    cache, answers = folder / "cache", folder / "answers.npz"
    commands: list[list[str | Path]] = [
        [LITEPOOL, "warm-cache", MODELS, "--cache-dir", cache],
        [sys.executable, "-m", reference_program.__name__, answers],
    ]
    children = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment())
        for command in commands
    ]
    errors = [child.communicate(timeout=4 * PATIENCE)[1] for child in children]
    assert [child.returncode for child in children] == [0, 0], "\n".join(errors)
    return cache, answers


@pytest.fixture(scope="session")
def cache(_prepared: tuple[Path, Path]) -> Path:
    """A cache folder that holds every shipped model; tests only read it."""
    return _prepared[0]


@pytest.fixture(scope="session")
def reference(_prepared: tuple[Path, Path]) -> dict[str, Reference]:
    """The seeded records of each shipped model with TensorFlow's answers."""
    return reference_program.read(_prepared[1])

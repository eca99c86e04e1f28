"""Checks that import TensorFlow run in a process of their own: it leaves handlers behind that close pytest's files."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_alone(check: Callable[[], None]) -> None:
    """Call a function of a test module in a new process.

    Raises:
        AssertionError: it has failed; with what that process has said.
    """
    command = f"from {check.__module__} import {check.__name__} as check; check()"
    path = os.pathsep.join((str(ROOT), str(ROOT / "scripts")))
    ended = subprocess.run(
        [sys.executable, "-c", command],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert ended.returncode == 0, ended.stderr

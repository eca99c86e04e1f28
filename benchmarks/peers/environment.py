"""One virtual environment for each peer, made from its requirements when they have changed.

`requirements.in` names what is asked for, `requirements.txt` that and all that comes with it, as it was when measured
with Python 3.11 on Linux.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.paths import PEERS, VENVS


def venv(peer: str) -> Path:
    return VENVS / peer


def python(peer: str) -> str:
    return str(venv(peer) / "bin" / "python")


def requirements(peer: str) -> Path:
    return PEERS / peer / "requirements.txt"


def make(peer: str) -> None:
    """Takes minutes the first time. Raises CalledProcessError when a package cannot be had."""
    stamp = venv(peer) / "requirements.txt"
    wanted = requirements(peer).read_text()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"making the environment of {peer}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(venv(peer))], check=True)
    pip = [python(peer), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--requirement", str(requirements(peer))], check=True)
    stamp.write_text(wanted)


def pinned(text: str) -> dict[str, str]:
    """Name to version from a requirements file, as far as it says."""
    lines = (line.split("#")[0].split(";")[0].strip() for line in text.splitlines())
    pairs = (line.split("==") for line in lines if "==" in line)
    return {name.split("[")[0].strip(): version.strip() for name, version in pairs}


def versions(peer: str) -> dict[str, str]:
    """Of what was asked for."""
    return pinned(requirements(peer).with_suffix(".in").read_text())

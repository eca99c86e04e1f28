"""Starts a server and ends it with everything that it left behind.

This process makes itself the subreaper of its descendants, so a child whose parent is gone becomes a child of ours and
can still be found. Only descendants of this process are ever signalled, and only by their id.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36
GRACE_S = 20.0
LAST_S = 5.0


class StartError(Exception):
    """A server ended or gave no good answer in time; the message has the end of its log."""


def become_subreaper() -> None:
    """Without it, on a system that is no Linux, a peer's lost children are not found: a warning says so."""
    if not sys.platform.startswith("linux"):
        print("children that a server leaves behind cannot be collected on this system", file=sys.stderr)
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Child:
    """A running server and all its descendants. Owned by the measuring thread."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def tree(self) -> list[psutil.Process]:
        """All that lives of the server, also what has lost its parent: nothing else of ours lives meanwhile."""
        return [process for process in psutil.Process().children(recursive=True) if is_alive(process)]

    def require_alive(self) -> None:
        if self._process.poll() is not None:
            raise StartError(f"ended with {self._process.returncode}:\n{self.log_end()}")

    def log_end(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        """SIGTERM to the root; then to what is left; then SIGKILL. Returns when nothing of it lives."""
        known = self.tree()
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_S)
        end_all([*known, *self.tree()])
        reap()


def end_all(processes: Sequence[psutil.Process]) -> None:
    left = [process for process in set(processes) if is_alive(process)]
    for act in (psutil.Process.terminate, psutil.Process.kill):
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                act(process)
        deadline = time.monotonic() + LAST_S
        while left and time.monotonic() < deadline:
            reap()
            left = [process for process in left if is_alive(process)]
            time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    """A zombie is not; a process id that was given to another process is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def reap() -> None:
    """Take in the ended children that came to us from others. The Popen objects in use are asked before."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


@contextlib.contextmanager
def running(command: Sequence[str], env: Mapping[str, str], cwd: Path, log: Path) -> Iterator[Child]:
    """The command, started in a session of its own; ended however the block is left."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        process = subprocess.Popen(
            list(command),
            env={**os.environ, **env},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    child = Child(process, log)
    try:
        yield child
    finally:
        child.stop()

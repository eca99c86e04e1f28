"""One process that runs TensorFlow: started, spoken to, and ended."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.errors import ModelError
from app.runtime import frames

_CHILD = Path(__file__).parents[1] / "repository" / "engine_child" / "child_server.py"
_LAST_WORDS = 20_000

_LOG_PREFIX = re.compile(r"[A-Z]\d{4} [\d:.]+ +\d+ \S+\] ")
_TRACE = re.compile(r"@ |\*\*\* |PC: ")
"""Begin lines of the log in which TensorFlow's libraries say, after what happened, where in the machine code it was."""

LOST = (OSError, frames.Ended, frames.Broken)
"""What a conversation with the process fails with when it is over."""


class EngineProcess:
    """A process that has yet to load a model.

    Its end of the socket is its standard input: it ends when that does, and so with the server, whatever becomes of
    this. `end` may be called from any thread, and ends whatever the others are at with one of `LOST`.

    Raises:
        ModelError: it cannot be started.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        """Held while something is said,"""
        self._ending = threading.Lock()
        """and while the end is looked into, whose outcome is kept."""
        self._end = ""
        self._folder = tempfile.TemporaryDirectory(prefix="litepool-", ignore_cleanup_errors=True)
        self._noise = tempfile.TemporaryFile()  # noqa: SIM115  It is open as long as the process is.
        self._control, theirs = socket.socketpair()
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-I", str(_CHILD)],
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=self._noise,
                cwd=self._folder.name,
                env=_environment(self._folder.name),
                start_new_session=True,
            )
        except OSError as error:
            self._control.close()
            self._noise.close()
            self._folder.cleanup()
            raise ModelError(f"the TensorFlow process cannot be started: {error.strerror or error}") from error
        finally:
            theirs.close()

    def load(self, request: dict[str, Any], seconds: float) -> dict[str, Any]:
        """Have it load a model: what it says of it, which is not to be trusted. To be called once.

        Raises:
            OSError, frames.Ended, frames.Broken
        """
        with self._lock:
            self._control.settimeout(seconds)
            frames.send(self._control, request)
            return frames.receive(self._control)[0]

    def connect(self, seconds: float) -> socket.socket:
        """A connection of its own for one thread, on which nothing takes longer than `seconds`.

        Raises:
            OSError: the process has ended.
        """
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            try:
                socket.send_fds(self._control, [b"."], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        ours.settimeout(seconds)
        return ours

    def alive(self) -> bool:
        return self._child.poll() is None

    def end(self) -> str:
        """Kill it, and whatever it started, if it has not ended by itself: how it ended, in words."""
        with self._ending:
            if self._end:
                return self._end
            if self._child.returncode is None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._child.pid, signal.SIGKILL)
            # A process that is at its end is not killed by another signal than that which ended it.
            code = self._child.wait()
            # Whoever waits for it hears of the end before the socket is closed.
            with self._lock:
                self._control.close()
            self._folder.cleanup()
            self._end = f"died of {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
            if words := self._last_words():
                self._end += f" (its last words: {words})"
            return self._end

    def _last_words(self) -> str:
        with self._noise as noise:
            noise.seek(max(0, noise.seek(0, os.SEEK_END) - _LAST_WORDS))
            lines = [line.strip() for line in noise.read().decode(errors="replace").splitlines()]
        words = [line for line in lines if line and not _TRACE.match(line)]
        return _LOG_PREFIX.sub("", words[-1])[:200] if words else ""


def _environment(folder: str) -> dict[str, str]:
    """Nothing of the server's environment, which may hold secrets, reaches a model."""
    return {
        "PATH": os.defpath,
        "HOME": folder,
        "TMPDIR": folder,
        "LANG": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }

"""Starts and follows the conversion child."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from app.errors import ModelError
from app.repository.cache import Cache, Entry, content_key
from app.repository.layout import Kind, Source
from app.repository.model_config import ModelConfig, read_config

REVISION = "1"
"""Part of every cache key: raise it when the child would make something else of the same model."""

_CHILD = Path(__file__).with_name("conversion_child.py")
_DISTRIBUTIONS = ("tensorflow-cpu", "tensorflow", "tensorflow-macos")

Progress = Callable[[str], None]


def installed_tensorflow() -> str | None:
    """The version of TensorFlow in this environment, without importing it."""
    for name in _DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


class Converter:
    """Converts models, or finds them converted; `close`, from any thread, ends what is under way.

    Args:
        timeout: seconds that one conversion may take.
        memory: address space of the child, in bytes.
    """

    def __init__(self, cache: Cache, timeout: float, memory: int) -> None:
        self._cache = cache
        self._timeout = timeout
        self._memory = memory
        self._closed = False
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()

    def has(self, source: Source) -> bool:
        """Whether `convert` would find the model in the cache."""
        if source.kind is Kind.TFLITE:
            return True
        try:
            quantization = read_config(source.folder).quantization
            key = content_key(source.path, REVISION, quantization)
        except (ModelError, OSError):
            # Loading it will fail as soon, and say why.
            return True
        return self._cache.find(key, installed_tensorflow()) is not None

    def convert(self, source: Source, config: ModelConfig, progress: Progress) -> Entry:
        """The TFLite form of a model, from the cache or made now.

        Raises:
            ModelError: in one sentence, why there is none.
        """
        try:
            key = content_key(source.path, REVISION, config.quantization)
        except OSError as error:
            raise ModelError(f"{source.path.name} cannot be read: {error.strerror}") from error
        version = installed_tensorflow()
        if version is None:
            entry = self._cache.find(key, None)
            if entry is None:
                raise ModelError(
                    f"{source.path.name} is not in the cache of converted models, and TensorFlow is not installed to "
                    "convert it: install litepool[convert], or convert it elsewhere with `litepool convert`"
                )
            return entry
        return self._cache.find_or_make(key, version, lambda folder: self._run(source, config, folder, progress))

    def close(self) -> None:
        """End the children; conversions under way raise."""
        with self._lock:
            self._closed = True
            for child in self._children:
                child.kill()

    def _run(self, source: Source, config: ModelConfig, folder: Path, progress: Progress) -> dict[str, Any]:
        request = {
            "source": str(source.path.resolve()),
            "kind": source.kind.value,
            "quantization": config.quantization,
            "out": str(folder),
            "memory": self._memory,
            "parent": os.getpid(),
        }
        start = time.monotonic()
        with tempfile.TemporaryFile("w+", errors="replace") as noise, self._child(folder, noise) as child:
            expired = threading.Timer(self._timeout, child.kill)
            expired.start()
            try:
                outcome = _follow(child, request, progress)
            finally:
                expired.cancel()
            if time.monotonic() - start >= self._timeout and not outcome:
                raise ModelError(f"the conversion took longer than the {self._timeout:g} s it may")
            return self._judge(child, outcome, noise)

    @contextmanager
    def _child(self, folder: Path, noise: IO[str]) -> Iterator["subprocess.Popen[str]"]:
        with self._lock:
            if self._closed:
                raise ModelError("the server is shutting down")
            child = subprocess.Popen(
                [sys.executable, "-I", str(_CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=noise,
                cwd=folder,
                env=_environment(folder),
                text=True,
                start_new_session=True,
            )
            self._children.add(child)
        try:
            yield child
        finally:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
            with self._lock:
                self._children.discard(child)

    def _judge(self, child: "subprocess.Popen[str]", outcome: dict[str, Any], noise: IO[str]) -> dict[str, Any]:
        report = outcome.get("report")
        if isinstance(report, dict):
            return report
        if "error" in outcome:
            raise ModelError(str(outcome["error"]))
        if self._closed:
            raise ModelError("the server is shutting down")
        code = child.wait()
        how = f"died of {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"
        noise.seek(0)
        lines = [line.strip() for line in noise.read()[-20_000:].splitlines() if line.strip()]
        last = f"; its last words: {lines[-1][:200]}" if lines else ""
        raise ModelError(f"the conversion process {how} without a result{last}")


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the server's environment, which may hold secrets, reaches a model."""
    return {
        "PATH": os.defpath,
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "LANG": "C.UTF-8",
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }


def _follow(child: "subprocess.Popen[str]", request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Send the request and read the child's lines; its last word, or nothing if it dies without one."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        child.stdin.write(json.dumps(request))
        child.stdin.close()
    except BrokenPipeError:
        return {}
    for line in child.stdout:
        message = json.loads(line)
        if "stage" not in message:
            return dict(message)
        progress(str(message["stage"]))
    return {}

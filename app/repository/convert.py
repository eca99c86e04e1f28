"""Starts and follows the conversion child."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from app.errors import ModelError
from app.repository.cache import Cache, Entry, content_key
from app.repository.layout import Kind, Source
from app.repository.model_config import ModelConfig, read_config

log = logging.getLogger(__name__)

REVISION = "1"
"""Part of every cache key: raise it when the child would make something else of the same model."""

_CHILD = Path(__file__).with_name("conversion_child")
_DISTRIBUTIONS = ("tensorflow-cpu", "tensorflow", "tensorflow-macos")

_MORE_TIME = "give it more by --conversion-timeout or LITEPOOL_CONVERSION_TIMEOUT"
_LONGEST_MESSAGE = 1 << 20
_LAST_WORDS = 20_000

Progress = Callable[[str], None]


def installed_tensorflow() -> str | None:
    """The version of TensorFlow in this environment, without importing it."""
    return next((version for name in _DISTRIBUTIONS if (version := _version(name))), None)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _maker() -> str | None:
    """What would convert here, in one word: Keras, which has releases of its own, shapes the result as well."""
    tensorflow = installed_tensorflow()
    return f"{tensorflow}-keras-{_version('keras')}" if tensorflow else None


class Converter:
    """Converts models, or finds them converted; `close`, from any thread, ends what is under way.

    Args:
        timeout: seconds that one conversion may take.
        memory: address space of the child, in bytes.
    """

    def __init__(self, cache: Cache, timeout: float, memory: int) -> None:
        self._cache = cache
        self.timeout = timeout
        self._memory = memory
        self._closed = False
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()

    def has(self, source: Source) -> bool:
        """Whether `convert` would find the model in the cache."""
        if source.kind is Kind.TFLITE:
            return True
        try:
            key = _key(source, read_config(source.folder))
        except Exception:  # noqa: BLE001  Whatever it is, loading the model will meet it as well, and say it.
            return True
        return self._cache.find(key, _maker()) is not None

    def convert(self, source: Source, config: ModelConfig, progress: Progress) -> Entry:
        """The TFLite form of a model, from the cache or made now.

        Raises:
            ModelError: in one sentence, why there is none.
        """
        key = _key(source, config)
        version = _maker()
        if version is None:
            entry = self._cache.find(key, None)
            if entry is None:
                raise ModelError(
                    f"{source.path.name} is not in the cache of converted models, and TensorFlow is not installed to "
                    "convert it: install litepool[convert], or convert it elsewhere with `litepool convert`"
                )
            return entry

        def make(folder: Path) -> dict[str, Any]:
            report = self._run(source, config, folder, progress)
            if _key(source, config) != key:
                raise ModelError(f"{source.path.name} changed while it was converted: start again")
            return report

        return self._cache.find_or_make(key, version, make, self._waiting(progress))

    def keep(self, source: Source) -> Path | bytes:
        """A `.tflite` file as it is now: a copy in the cache, or its bytes where the cache cannot be written.

        The interpreter maps what it is given, and a mapped file that is overwritten in place ends the process.

        Raises:
            ModelError: the file cannot be read.
        """

        def copy(folder: Path) -> dict[str, Any]:
            shutil.copyfile(source.path, folder / "model.tflite")
            # There is nothing to be compared with.
            (folder / "parity.npz").touch()
            return {}

        try:
            return self._cache.find_or_make(content_key(source.path), "unchanged", copy).model
        except OSError as error:
            raise ModelError(f"{source.path.name} cannot be read: {error.strerror}") from error
        except ModelError as error:
            log.info("%s is held in memory: %s", source.path.name, error.message)
            return source.path.read_bytes()

    def close(self) -> None:
        """End the children; conversions under way raise."""
        with self._lock:
            self._closed = True
            for child in self._children:
                _end(child)

    def _waiting(self, progress: Progress) -> Callable[[], None]:
        """What to do while another process converts the model: say so once, and give up when closed."""
        told = False

        def waiting() -> None:
            nonlocal told
            if self._closed:
                raise ModelError("the server is shutting down")
            if not told:
                progress("waiting for another process that converts it")
            told = True

        return waiting

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
        with tempfile.TemporaryFile() as noise, self._child(folder, noise) as child:
            expired = threading.Timer(self.timeout, _end, [child])
            expired.daemon = True
            expired.start()
            try:
                outcome = _follow(child, request, progress)
            finally:
                expired.cancel()
            if time.monotonic() - start >= self.timeout and not outcome:
                raise ModelError(f"the conversion took longer than the {self.timeout:g} s it may: {_MORE_TIME}")
            return self._judge(child, outcome, noise)

    @contextmanager
    def _child(self, folder: Path, noise: IO[bytes]) -> Iterator["subprocess.Popen[str]"]:
        with self._lock:
            if self._closed:
                raise ModelError("the server is shutting down")
            try:
                child = subprocess.Popen(
                    [sys.executable, "-I", str(_CHILD)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=noise,
                    cwd=folder,
                    env=_environment(folder),
                    encoding="utf-8",
                    errors="replace",
                    start_new_session=True,
                )
            except OSError as error:
                raise ModelError(f"the conversion process cannot be started: {error.strerror or error}") from error
            self._children.add(child)
        try:
            yield child
        finally:
            _end(child)
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
            with self._lock:
                self._children.discard(child)

    def _judge(self, child: "subprocess.Popen[str]", outcome: dict[str, Any], noise: IO[bytes]) -> dict[str, Any]:
        report = outcome.get("report")
        if isinstance(report, dict):
            return report
        if "error" in outcome:
            raise ModelError(str(outcome["error"]))
        if self._closed:
            raise ModelError("the server is shutting down")
        code = child.wait()
        how = f"exited with {code}"
        if code < 0:
            # What libraries do when they get no memory is die.
            how = f"died of {signal.Signals(-code).name}, with {self._memory >> 20} MiB that it might use,"
        noise.seek(max(0, noise.seek(0, os.SEEK_END) - _LAST_WORDS))
        lines = [line.strip() for line in noise.read().decode(errors="replace").splitlines() if line.strip()]
        last = f"; its last words: {lines[-1][:200]}" if lines else ""
        raise ModelError(f"the conversion process {how} without a result{last}")


def _key(source: Source, config: ModelConfig) -> str:
    try:
        return content_key(source.path, REVISION, config.quantization)
    except OSError as error:
        raise ModelError(f"{source.path.name} cannot be read: {error.strerror}") from error


def _end(child: "subprocess.Popen[str]") -> None:
    """Kill a child that was not waited for yet, and whatever it started, which might hold its output open."""
    if child.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


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
    while line := child.stdout.readline(_LONGEST_MESSAGE):
        try:
            message = dict(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            return {"error": f"the conversion process said what is no message: {line.strip()[:100]!r}"}
        if "stage" not in message:
            return message
        progress(str(message["stage"]))
    return {}

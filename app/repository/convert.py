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
from app.repository.arrays import save_arrays
from app.repository.cache import Cache, Entry, Stopped, Unwritable, content_key
from app.repository.layout import Kind, Source
from app.repository.model_config import ModelConfig, read_config
from app.repository.samples import SAMPLES
from app.repository.trial import Trial, machine
from app.repository.variants import INT8, Variants
from app.tensors import Array

log = logging.getLogger(__name__)

REVISION = "2"
"""Part of every cache key: raise it when the child would make something else of the same model."""

_CHILD = Path(__file__).with_name("conversion_child")
_DISTRIBUTIONS = ("tensorflow-cpu", "tensorflow", "tensorflow-macos")

_MORE_TIME = "give it more by --conversion-timeout or LITEPOOL_CONVERSION_TIMEOUT"
_LONGEST_MESSAGE = 1 << 20
_LAST_WORDS = 20_000

_KEPT = ("model.tflite", "parity.npz", "engine")

_MOST_TFLITE = 1 << 31
"""What 32 bits, of which one is a sign, can point into."""

Progress = Callable[[str], None]


def installed_tensorflow() -> str | None:
    """The version of TensorFlow in this environment, without importing it."""
    return next((version for name in _DISTRIBUTIONS if (version := _version(name))), None)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _maker(config: ModelConfig) -> str | None:
    """What would convert here, in one word: Keras, which has releases of its own, shapes the result as well.

    Of several variants this machine chooses the one that is fastest on it.
    """
    tensorflow = installed_tensorflow()
    if not tensorflow:
        return None
    word = f"{tensorflow}-keras-{_version('keras')}"
    return f"{word}-{machine()}" if config.quantization == "auto" else word


class _Died(ModelError):
    """The child was ended by a signal."""


class Converter:
    """Converts models, or finds them converted; `close`, from any thread, ends what is under way.

    Args:
        trial: opens what comes out.
        timeout: seconds that one conversion may take.
        memory: address space of the child, in bytes.
    """

    def __init__(self, cache: Cache, trial: Trial, timeout: float, memory: int) -> None:
        self._cache = cache
        self.trial = trial
        self.timeout = timeout
        self.memory = memory
        self._closed = False
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()

    def has(self, source: Source) -> bool:
        """Whether `convert` would find the model in the cache."""
        if source.kind is Kind.TFLITE:
            return True
        try:
            config = read_config(source.folder)
            key = _key(source, config)
        except Exception:  # noqa: BLE001  Whatever it is, loading the model will meet it as well, and say it.
            return True
        entry = self._cache.find(key, _maker(config))
        # TensorFlow takes as long to start as it does to convert.
        return entry is not None and "engine" not in entry.report

    def convert(self, source: Source, config: ModelConfig, samples: dict[str, Array], progress: Progress) -> Entry:
        """The TFLite form of a model, from the cache or made now.

        Where TFLite cannot express it, the entry has a folder `engine`, which TensorFlow can run, in place of a model.

        Args:
            samples: real records by input name, or by "" for the only one, each `[rows, *record]`; may be empty.

        Raises:
            ModelError: in one sentence, why there is none.
        """
        key = _key(source, config)
        version = _maker(config)
        if version is None:
            entry = self._cache.find(key, None)
            if entry is None:
                raise ModelError(
                    f"{source.path.name} is not in the cache of converted models, and TensorFlow is not installed to "
                    "convert it: install litepool[convert], or convert it elsewhere with `litepool convert`"
                )
            return entry

        def make(folder: Path) -> dict[str, Any]:
            report = self._run(source, config, samples, folder, progress)
            if _key(source, config) != key:
                raise ModelError(f"{source.path.name} changed while it was converted: start again")
            return report

        return self._cache.find_or_make(key, version, make, self._waiting(progress), _KEPT)

    def keep(self, source: Source) -> Path | bytes:
        """A `.tflite` file as it is now: a copy in the cache, or its bytes where the cache cannot be written.

        The interpreter maps what it is given, and a mapped file that is overwritten in place ends the process.

        Raises:
            ModelError: the file cannot be read.
        """

        _check_tflite(source.path)

        def copy(folder: Path) -> dict[str, Any]:
            shutil.copyfile(source.path, folder / "model.tflite")
            if content_key(folder / "model.tflite") != key:
                raise ModelError(f"{source.path.name} changed while it was read: it is read again when it has settled")
            return {}

        try:
            key = content_key(source.path)
            return self._cache.find_or_make(key, "unchanged", copy).model
        except OSError as error:
            raise ModelError(f"{source.path.name} cannot be read: {error.strerror}") from error
        except Unwritable as error:
            log.info("%s is held in memory: %s", source.path.name, error.message)
            return source.path.read_bytes()

    def close(self) -> None:
        """End the children; conversions under way raise."""
        with self._lock:
            self._closed = True
            for child in self._children:
                _end(child)
        self.trial.close()

    def _waiting(self, progress: Progress) -> Callable[[], None]:
        """What to do while another process converts the model: say so once, and give up when closed."""
        told = False

        def waiting() -> None:
            nonlocal told
            if self._closed:
                raise Stopped
            if not told:
                progress("waiting for another process that converts it")
            told = True

        return waiting

    def _run(
        self, source: Source, config: ModelConfig, samples: dict[str, Array], folder: Path, progress: Progress
    ) -> dict[str, Any]:
        variants = Variants(self.trial, folder, config)
        given = {
            "source": str(source.path.resolve()),
            "kind": source.kind.value,
            "samples": _put_samples(samples, folder),
            "calibration": _put_calibration(source, config, folder),
            "out": str(folder),
            "memory": self.memory,
            "parent": os.getpid(),
        }
        wanted, failed = variants.wanted, {}
        try:
            report = self._ask(given | {"variants": wanted}, config, folder, progress, variants)
        except _Died as error:
            if INT8 not in wanted or len(wanted) == 1:
                raise
            # TensorFlow's calibrator crashes on some models; the other variants need it not.
            failed = {INT8: error.message}
            for left in ("work", "engine"):
                shutil.rmtree(folder / left, ignore_errors=True)
            others = [name for name in wanted if name != INT8]
            report = self._ask(given | {"variants": others}, config, folder, progress, variants)
        if "engine" not in report:
            failed |= {name: str(found["error"]) for name, found in report["variants"].items() if "error" in found}
            chosen = variants.choose(failed)
            (folder / chosen.file).rename(folder / "model.tflite")
            report["variants"] = variants.table(chosen, failed)
            report["rung"] = chosen.rung
            report["quantization"] = chosen.name
        return report

    def _ask(
        self, request: dict[str, Any], config: ModelConfig, folder: Path, progress: Progress, variants: Variants
    ) -> dict[str, Any]:
        """Have a child convert; its report."""
        start = time.monotonic()
        with tempfile.TemporaryFile() as noise, self._child(folder, noise) as child:
            expired = threading.Timer(self.timeout, _end, [child])
            expired.daemon = True
            expired.start()
            try:
                outcome = _follow(child, request, progress, variants.judge)
            finally:
                expired.cancel()
            if time.monotonic() - start >= self.timeout and not outcome:
                raise ModelError(f"the conversion took longer than the {self.timeout:g} s it may: {_MORE_TIME}")
            return self._judge(child, outcome, noise, config)

    @contextmanager
    def _child(self, folder: Path, noise: IO[bytes]) -> Iterator["subprocess.Popen[str]"]:
        with self._lock:
            if self._closed:
                raise Stopped
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
                # Closing writes what a child that hung up did not take, and finds the pipe broken once more.
                with suppress(BrokenPipeError):
                    if pipe is not None:
                        pipe.close()
            with self._lock:
                self._children.discard(child)

    def _judge(
        self, child: "subprocess.Popen[str]", outcome: dict[str, Any], noise: IO[bytes], config: ModelConfig
    ) -> dict[str, Any]:
        report = outcome.get("report")
        if isinstance(report, dict):
            return report
        if isinstance(outcome.get("engine"), dict) and config.engine != "litert":
            return dict(outcome)
        if "error" in outcome:
            raise ModelError(str(outcome["error"]))
        if self._closed:
            raise Stopped
        code = child.wait()
        how = f"exited with {code}"
        if code < 0:
            # What libraries do when they get no memory is die.
            how = f"died of {signal.Signals(-code).name}, with {self.memory >> 20} MiB that it might use,"
        noise.seek(max(0, noise.seek(0, os.SEEK_END) - _LAST_WORDS))
        lines = [line.strip() for line in noise.read().decode(errors="replace").splitlines() if line.strip()]
        last = f"; its last words: {lines[-1][:200]}" if lines else ""
        raise (_Died if code < 0 else ModelError)(f"the conversion process {how} without a result{last}")


def _key(source: Source, config: ModelConfig) -> str:
    shaping = {"quantization", "tolerance", "calibration", "engine"}
    if config.quantization == "auto":
        shaping |= {"lane"}
    try:
        beside = [source.folder / name for name in (config.calibration, SAMPLES) if name and source.folder]
        digests = [content_key(path) for path in beside if path.is_file()]
        return content_key(source.path, REVISION, config.model_dump_json(include=shaping), *digests)
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


def _follow(
    child: "subprocess.Popen[str]",
    request: dict[str, Any],
    progress: Progress,
    judge: Callable[[dict[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Send the request and read the child's lines, judging its candidates; its last word, or nothing if it has none."""
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        _say(child.stdin, request)
        while line := child.stdout.readline(_LONGEST_MESSAGE):
            try:
                message = dict(json.loads(line))
            except (ValueError, TypeError, RecursionError):
                return {"error": f"the conversion process said what is no message: {line.strip()[:100]!r}"}
            if "stage" in message:
                progress(str(message["stage"]))
            elif "candidate" in message:
                progress("checking the converted model")
                _say(child.stdin, judge(message["candidate"]))
            else:
                return message
    except BrokenPipeError:
        return {}
    return {}


def _say(stream: IO[str], message: dict[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def _put_samples(samples: dict[str, Array], folder: Path) -> str | None:
    """Where the child finds real records; None when there are none."""
    if not samples:
        return None
    save_arrays(folder / "samples.npz", samples)
    return str(folder / "samples.npz")


def _put_calibration(source: Source, config: ModelConfig, folder: Path) -> str | None:
    """A copy of the owner's calibration data: the child may read nothing beside the model."""
    if config.calibration is None:
        return None
    assert source.folder is not None
    path = source.folder / config.calibration
    try:
        shutil.copyfile(path, folder / "calibration.npz")
    except OSError as error:
        raise ModelError(f"model.toml: calibration = {config.calibration!r}: {error.strerror}") from error
    return str(folder / "calibration.npz")


def _check_tflite(path: Path) -> None:
    """Refuse what is too large, or plainly no model, before all of it is read.

    Raises:
        ModelError: naming what was found.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ModelError(f"{path.name} cannot be read: {error.strerror}") from error
    if head[4:] != b"TFL3":
        found = f"{size:,} bytes that begin with {head.decode('latin-1')!r}" if size else "an empty file"
        raise ModelError(f"{path.name} is no TFLite model: found {found}, expected 'TFL3' at the fifth byte")
    if size >= _MOST_TFLITE:
        raise ModelError(f"{path.name} has {size:,} bytes: a TFLite model has less than {_MOST_TFLITE:,}")

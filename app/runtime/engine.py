"""Models that TFLite cannot express, run by TensorFlow in a process of its own. The slow road, and a narrow one.

An invoke here costs two copies of its tensors and two hops between processes beside TensorFlow's own time.
"""

import logging
import socket
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

from app.errors import ModelError, RunnerLost
from app.runtime import frames
from app.runtime.engine_process import LOST, EngineProcess
from app.tensors import FREE, Array, Signature, TensorSpec, make_signature

log = logging.getLogger(__name__)

_MOST_DEATHS = 3
_DEATHS_SECONDS = 60.0


class Engine:
    """One loaded SavedModel and its process, which is started again when it dies, unless it does so time and again.

    The process ends with this object, or with the server. Its methods may be called from any thread.

    Args:
        model: the SavedModel's folder, which will not change.
        signature: which of its signatures is served; without one `serving_default`, or the only one.
        threads: TensorFlow's own, which share the work of one operation.
        memory: address space of the process, in bytes.
        load_seconds: that starting TensorFlow and loading the model may take.
        invoke_seconds: that one invoke may take; then the process is ended, and with it the invokes beside that one.

    Raises:
        ModelError: in one sentence, why TensorFlow does not run the model.
    """

    def __init__(
        self,
        model: Path,
        signature: str | None = None,
        threads: int = 1,
        *,
        memory: int = 16 << 30,
        load_seconds: float = 300.0,
        invoke_seconds: float = 60.0,
    ) -> None:
        self.folder = model
        self._request = {
            "source": str(model.resolve()),
            "signature": signature,
            "threads": threads,
            "memory": memory,
        }
        self._load_seconds = load_seconds
        self._invoke_seconds = invoke_seconds
        self._process: EngineProcess | None = None
        self._ending: weakref.finalize[Any, Any] | None = None
        self._deaths: deque[float] = deque(maxlen=_MOST_DEATHS)
        self._lock = threading.Lock()
        """Guards the fields, and is never held for long;"""
        self._starting = threading.Lock()
        """is held while a process starts, so that others wait for that one."""
        self.failed: str | None = None
        """Why no process will be started any more."""
        self._told: tuple[Signature, bool] | None = None
        with self._starting:
            self._told = self._start()[1]

    @property
    def signature(self) -> Signature:
        assert self._told is not None
        return self._told[0]

    @property
    def stateful(self) -> bool:
        assert self._told is not None
        return self._told[1]

    def runner(self) -> "EngineRunner":
        """A runner for one thread. A model's variables are each runner's own, and first as the model has them."""
        return EngineRunner(self)

    def close(self) -> None:
        """End the process; what is under way fails."""
        with self._lock:
            self.failed = self.failed or "the model is not loaded any more"
            ending, self._process, self._ending = self._ending, None, None
        if ending is not None:
            ending()

    def connect(self) -> tuple[EngineProcess, socket.socket]:
        """The process, started again if need be, and a connection to it.

        Raises:
            ModelError: there is none, or none any more.
        """
        with self._starting:
            process = self._process
            if process is not None and not process.alive():
                log.warning("%s between requests: it is started again", self._bury(process))
                process = None
            if process is None:
                process = self._start()[0]
        try:
            return process, process.connect(self._invoke_seconds)
        except OSError as error:
            raise self.lost(process, error) from error

    def is_running(self, process: EngineProcess) -> bool:
        return process is self._process and process.alive()

    def lost(self, process: EngineProcess, error: Exception) -> ModelError:
        """End a process that a conversation with failed: what to tell whoever had it."""
        how = self._bury(process)
        if isinstance(error, TimeoutError):
            how = f"TensorFlow took longer than the {self._invoke_seconds:g} s that it may for one request"
        elif isinstance(error, frames.Broken):
            how = f"the TensorFlow process sent what is no answer: {error}"
        return RunnerLost(f"{how}, and has been ended" if isinstance(error, TimeoutError) else how)

    def _start(self) -> tuple[EngineProcess, tuple[Signature, bool]]:
        with self._lock:
            if self.failed is not None:
                raise RunnerLost(self.failed)
            process = self._process = EngineProcess()
            self._ending = weakref.finalize(self, process.end)
        try:
            told = _understand(process.load(self._request, self._load_seconds))
            if self._told is not None and told != self._told:
                raise ModelError("the SavedModel has another signature than when it was loaded: load it again")
        except TimeoutError as error:
            self._bury(process)
            limit = f"{self._load_seconds:g} s that it may for starting and loading the model"
            raise ModelError(f"TensorFlow took longer than the {limit}") from error
        except LOST as error:
            raise ModelError(f"{self._bury(process)} while it loaded the model") from error
        except ModelError:
            self._bury(process)
            raise
        return process, told

    def _bury(self, process: EngineProcess) -> str:
        """End a process and forget it: how it ended, in words. Only the first to come counts its death."""
        how = f"the TensorFlow process {process.end()}"
        with self._lock:
            if process is not self._process:
                return self.failed or how
            if self._ending is not None:
                self._ending.detach()
            self._process = self._ending = None
            self._deaths.append(monotonic())
            if len(self._deaths) == _MOST_DEATHS and self._deaths[-1] - self._deaths[0] < _DEATHS_SECONDS:
                self.failed = (
                    f"the model is not run any more until it is loaded again, because its TensorFlow process died "
                    f"{_MOST_DEATHS} times within {_DEATHS_SECONDS:g} s; the last time {how}"
                )
        return how


class EngineRunner:
    """What `app.runtime.interpreter.Runner` is for LiteRT: belongs to one thread at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._process: EngineProcess | None = None
        self._connection: socket.socket | None = None
        self._closing: weakref.finalize[Any, Any] | None = None

    def of(self, name: str) -> "EngineRunner":  # noqa: ARG002
        """Itself: TensorFlow is asked for one signature."""
        return self

    def signature(self) -> Signature:
        return self._engine.signature

    def hold_to(self, signature: Signature) -> None:
        """Nothing: TensorFlow answers what it declares, or raises."""

    def stateful(self) -> bool:
        return self._engine.stateful

    def unpredictable(self) -> bool:
        """True: what another process does, and when, is not for this one to foretell."""
        return True

    def invoke(self, inputs: Sequence[Array]) -> list[Array]:
        """Run the model once. The GIL is released meanwhile.

        Args:
            inputs: in the signature's order, of the signature's dtypes; strings as arrays of `bytes`.

        Returns:
            The outputs in the signature's order.

        Raises:
            ModelError: TensorFlow refuses, or the process died or took too long, and the next invoke starts another.
        """
        process, connection = self._connected()
        try:
            frames.send(connection, {}, inputs)
            header, outputs = frames.receive(connection)
        except frames.Oversized as error:
            raise ModelError(f"TensorFlow is not given so much: {error}") from error
        except LOST as error:
            raise self._engine.lost(process, error) from error
        if "error" in header:
            raise ModelError(f"TensorFlow failed: {_one_line(header['error'])}")
        wanted = [spec.dtype for spec in self._engine.signature.outputs]
        if [output.dtype for output in outputs] != wanted:
            raise self._engine.lost(process, frames.Broken("other tensors than the signature has"))
        return outputs

    def _connected(self) -> tuple[EngineProcess, socket.socket]:
        if self._process is None or self._connection is None or not self._engine.is_running(self._process):
            if self._closing is not None:
                self._closing()
            self._process, self._connection = self._engine.connect()
            self._closing = weakref.finalize(self, self._connection.close)
        return self._process, self._connection


def _understand(told: dict[str, Any]) -> tuple[Signature, bool]:
    """The signature that the process tells, and whether the model keeps state.

    Raises:
        ModelError: it tells why there is none, or what cannot be one.
    """
    match told:
        case {"error": reason}:
            raise ModelError(_one_line(reason))
        case {"signature": str(name), "inputs": list(inputs), "outputs": list(outputs), "stateful": bool(stateful)}:
            specs = [tuple(map(_spec, tensors)) for tensors in (inputs, outputs)]
            return make_signature(name, specs[0], specs[1]), stateful
    raise ModelError("the TensorFlow process told no signature")


def _spec(told: Any) -> TensorSpec:
    match told:
        case [str(name), str(dtype), list(shape)] if dtype in frames.DTYPES:
            if all(type(size) is int and FREE <= size <= frames.MOST_BYTES for size in shape):
                return TensorSpec(name, frames.DTYPES[dtype], tuple(shape))
    raise ModelError("the TensorFlow process told no signature")


def _one_line(reason: object) -> str:
    return " ".join(str(reason).split())[:300]

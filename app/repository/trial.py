"""What a model was found to be when it was first opened, in a process that may crash, and kept for the next time."""

import hashlib
import json
import logging
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import orjson

from app.errors import ModelError
from app.repository.arrays import load_arrays
from app.repository.cache import Cache, Stopped, Unwritable
from app.repository.examine import REVISION
from app.repository.parity import Parity
from app.runtime.contract import BatchClass, Contract
from app.runtime.profile import Profile
from app.settings import available_cpus
from app.tensors import Array, Batching

log = logging.getLogger(__name__)

_CHILD = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from app.repository import trial_child
trial_child.main()
"""
"""The child finds this very `app`, installed or not, and nothing by where it is started or by the environment."""

_GRACE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is opened with.

    Args:
        threads: LiteRT's own.
        rows_independent: the owner says that rows are independent.
        tolerance: of the comparison with TensorFlow.
        quantized: whether the weights have been made smaller.
        reference: the file of TensorFlow's answers; None where there are none.
        references: what the conversion says of each signature in it.
        records: the file of real records; None where there are none.
    """

    threads: int = 1
    rows_independent: bool = False
    tolerance: float = 0.0
    quantized: bool = False
    reference: Path | None = None
    references: list[dict[str, Any]] | None = None
    records: Path | None = None


@dataclass(frozen=True, slots=True)
class Examined:
    """What was found of one signature.

    Args:
        unpredictable: whether what an invoke costs depends on its input.
        example: one record of each input, `[1, *record]`, that the model runs on.
        profile_ms: how long measuring `profile` took.
    """

    name: str
    contract: Contract
    unpredictable: bool
    profile: Profile
    profile_ms: float
    parity: Parity | None
    example: list[Array]


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found of a model: its signatures, the default first, and why others are not served."""

    signatures: list[Examined]
    left_out: dict[str, str]


class Trial:
    """Opens models in child processes. Any thread may ask; `close` ends what is under way.

    Args:
        seconds: how long opening one may take.
        memory: address space of a child, in bytes.
    """

    def __init__(self, cache: Cache, seconds: float, memory: int) -> None:
        self._cache = cache
        self._seconds = seconds
        self._memory = memory
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._asking: set[socket.socket] = set()
        self._closed = False

    def of(self, model: Path | bytes, question: Question, keep: bool = True) -> Findings:
        """Open a model, or find what was found when it was last opened on such a machine.

        Args:
            keep: whether the findings are worth to be kept; they are not where the model itself could not be.

        Raises:
            ModelError: in one sentence, why the model is not served.
        """
        if isinstance(model, Path) and keep:
            with suppress(Unwritable):
                return self._kept(model, question)
        with tempfile.TemporaryDirectory(prefix="litepool-trial-") as name:
            out = Path(name)
            if isinstance(model, bytes):
                (out / "model.tflite").write_bytes(model)
                model = out / "model.tflite"
            return _findings(self._open(model, question, out), out)

    def _kept(self, model: Path, question: Question) -> Findings:
        key = _key(model, question)
        entry = self._cache.find_or_make(
            key, machine(), lambda folder: self._open(model, question, folder), self._check_open, _FILES
        )
        return _findings(entry.report, entry.folder)

    def _check_open(self) -> None:
        if self._closed:
            raise Stopped

    def close(self) -> None:
        """Ask for nothing more; what is under way ends."""
        with self._lock:
            self._closed = True
            self._end()
            for waiting in self._asking:
                # Which ends both the wait and what is waited for, even if it is in a model that never ends.
                waiting.shutdown(socket.SHUT_RDWR)

    def _open(self, model: Path, question: Question, out: Path) -> dict[str, Any]:
        request = {
            "model": str(model.resolve()),
            "out": str(out),
            "threads": question.threads,
            "rows_independent": question.rows_independent,
            "tolerance": question.tolerance,
            "quantized": question.quantized,
            "reference": str(question.reference) if question.reference else None,
            "references": question.references,
            "records": str(question.records) if question.records else None,
            "seconds": self._seconds,
            "memory": self._memory,
        }
        # In a file, because a message to the child has to fit its socket.
        asked = out.resolve() / "request.json"
        asked.write_text(json.dumps(request))
        verdict = self._ask(str(asked).encode())
        if verdict.get("late"):
            raise ModelError(f"opening it took longer than the {self._seconds:g} s it may")
        if "died" in verdict:
            why = "the file is damaged or hostile"
            if verdict["died"] in ("SIGABRT", "SIGKILL"):
                # What libraries do when they get no memory is abort; what the system does when it has none is kill.
                why += f", or needs more than the {self._memory >> 20} MiB of memory that it may use"
            raise ModelError(f"opening it crashes the interpreter ({verdict['died']}): {why}")
        try:
            answer = json.loads((out / "trial.json").read_text())
        except (OSError, ValueError) as error:
            raise ModelError(f"the process that opens it ended without a result ({verdict})") from error
        if "error" in answer:
            raise ModelError(str(answer["error"]))
        if "fault" in answer:
            log.error("opening %s failed in a way that nobody foresaw:\n%s", model, answer["fault"])
            raise ModelError("opening it failed in a way that nobody foresaw: the log has more")
        return dict(answer["found"])

    def _ask(self, request: bytes) -> dict[str, Any]:
        """Send a request, and wait for how it ended. A child that has left for want of requests is started again."""
        for _ in range(2):
            mine, theirs = socket.socketpair()
            with mine:
                mine.settimeout(self._seconds + _GRACE_SECONDS)
                with theirs, self._lock:
                    control = self._started()
                    self._asking.add(mine)
                    with suppress(OSError):
                        socket.send_fds(control, [request], [theirs.fileno()])
                try:
                    answer = mine.makefile("rb").read()
                except TimeoutError:
                    return {"late": True}
                finally:
                    with self._lock:
                        self._asking.discard(mine)
            if answer:
                return dict(json.loads(answer))
            with self._lock:
                # Another thread may have met the same, and have started another one.
                if self._control is control:
                    self._end()
        raise ModelError("the process that opens models does not answer")

    def _started(self) -> socket.socket:
        """The control socket of the child, which is started if need be; to be called with the lock held."""
        self._check_open()
        if self._control is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-c", _CHILD, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    # Its libraries' threads would not survive a fork; and nothing of our environment reaches a model.
                    env={"PATH": os.defpath, "LANG": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                    start_new_session=True,
                )
            self._control = ours
        return self._control

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
            self._process = None


_FILES = ("example.npz",)


def _findings(report: dict[str, Any], folder: Path) -> Findings:
    arrays = load_arrays(folder / "example.npz")
    signatures = []
    for place, found in enumerate(report["signatures"]):
        count = sum(name.startswith(f"in_{place}_") for name in arrays)
        signatures.append(
            Examined(
                found["name"],
                Contract(BatchClass(found["class"]), found["reason"], Batching(found["batching"])),
                found["unpredictable"],
                Profile({int(rows): cost for rows, cost in found["invoke_us"].items()}),
                found["profile_ms"],
                Parity.from_json(found["parity"]) if found["parity"] else None,
                [arrays[f"in_{place}_{index}"] for index in range(count)],
            )
        )
    return Findings(signatures, report["left_out"])


def _key(model: Path, question: Question) -> str:
    """What the findings hang on, beside the machine."""
    digest = hashlib.sha256()
    for path in (model, question.reference, question.records):
        digest.update(b"\0")
        if path is not None:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    rest = [asdict(question) | {"reference": None, "records": None}, REVISION]
    digest.update(orjson.dumps(rest))
    return f"trial-{digest.hexdigest()[:40]}"


def machine() -> str:
    """A word for what decides how long an invoke takes, and how LiteRT goes about it."""
    text = f"{platform.machine()} {_processor()} {available_cpus()}"
    return f"litert-{metadata.version('ai-edge-litert')}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")

"""How TensorFlow's process is started, spoken to, ended and started again. Its own part is in test_engine_child.py."""

import gc
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from app.errors import ModelError
from app.runtime import batching, engine, frames
from app.runtime.engine import Engine, EngineRunner
from app.runtime.engine_process import EngineProcess
from app.tensors import FREE, Array, Batching, Signature, TensorSpec
from tests.runtime import engine_stand_in as stand_in

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
ROW = np.array([[1, 2]], np.float32)
DIES = np.full((1, 2), -1, np.float32)
FAILS = """
LOG = "F0000 00:00:1795380338.348652   10587 ops.cc:737] the roof is on fire"
def run(x):
    if x[0, 0] < 0:
        print(LOG, "*** Check failure stack trace: ***", "    @  0x7f  (unknown)", sep="\\n", file=sys.stderr)
        sys.stderr.flush()
        os.abort()
    return x * 2
model.run = run
"""

Opener = Callable[..., AbstractContextManager[Engine]]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Opener:
    """An engine whose process runs `body`."""

    def start(body: str = "", **limits: float) -> AbstractContextManager[Engine]:
        stand_in.install(monkeypatch, tmp_path, body)
        return closing(Engine(tmp_path, **limits))  # type: ignore[arg-type]

    return start


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Opened by a stand-in and by the test, each waits for the other."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


def refusal(run: Callable[[], object]) -> str:
    with pytest.raises(ModelError) as caught:
        run()
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 600
    return caught.value.message


def pid_of(runner: EngineRunner) -> int:
    return int(runner.invoke([ROW])[1][0])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# What it looks like


def test_the_signature_is_what_the_process_tells(opened: Opener) -> None:
    with opened() as it:
        runner = it.runner()

        assert runner.signature() == Signature(
            "serving_default",
            (TensorSpec("x", np.dtype(np.float32), (FREE, 2)),),
            (TensorSpec("y", np.dtype(np.float32), (FREE, 2)), TensorSpec("pid", np.dtype(np.int64), (FREE,))),
            Batching.FREE,
        )
        assert runner.unpredictable()
        assert not runner.stateful()


def test_a_model_with_variables_says_so(opened: Opener) -> None:
    with opened("model.description['stateful'] = True") as it:
        assert it.runner().stateful()


def test_outputs_come_in_the_signatures_order_for_any_batch(opened: Opener) -> None:
    with opened() as it:
        runner = it.runner()

        for rows in (1, 7, 30_000, 2):
            x = np.arange(2 * rows, dtype=np.float32).reshape(rows, 2)
            doubled, pids = runner.invoke([x])
            assert np.array_equal(doubled, 2 * x)
            assert set(pids.tolist()) != {os.getpid()}


def test_it_is_run_as_other_runners_are(opened: Opener) -> None:
    with opened() as it:
        doubled, _ = batching.run(it.runner(), Batching.FREE, [ROW.repeat(3, 0)], 3)

        assert doubled.tolist() == [[2, 4]] * 3


def test_strings_go_and_come_as_bytes(opened: Opener) -> None:
    body = """
    model.description |= {"inputs": [["s", "object", [-1]]], "outputs": [["t", "object", [-1]]]}
    model.invoke = lambda inputs: [inputs[0] + b"!"]
    """
    with opened("\n".join(map(str.strip, body.splitlines()))) as it:
        (answer,) = it.runner().invoke([np.array([b"a", b"", b"\0\xff"], object)])

        assert answer.tolist() == [b"a!", b"!", b"\0\xff!"]


def test_runners_run_at_the_same_time(opened: Opener) -> None:
    meeting = "meeting = threading.Barrier(3)\nmodel.run = lambda x: x + meeting.wait() * 0"
    with opened(meeting) as it, ThreadPoolExecutor(3) as threads:
        runners = [it.runner() for _ in range(3)]
        answers = list(threads.map(lambda runner: runner.invoke([ROW])[0].tolist(), runners))

        assert answers == [ROW.tolist()] * 3


def test_each_runner_gets_a_runner_of_the_process(opened: Opener) -> None:
    body = """
class Counting:
    def __init__(self):
        self.calls = 0
    def invoke(self, inputs):
        self.calls += 1
        return [inputs[0] * self.calls, np.zeros(1, np.int64)]
model.runner = Counting
"""
    with opened(body) as it:
        one, other = it.runner(), it.runner()

        assert [one.invoke([ROW])[0][0, 0] for _ in range(3)] == [1, 2, 3]
        assert other.invoke([ROW])[0][0, 0] == 1
        assert one.invoke([ROW])[0][0, 0] == 4


def test_the_process_is_told_what_to_load_and_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "def load(request):\n    model.description['signature'] = repr(sorted(request.items()))\n    return model"
    stand_in.install(monkeypatch, tmp_path, body)

    with closing(Engine(tmp_path, "negate", 3, memory=1 << 33)) as it:
        told = {"source": str(tmp_path), "signature": "negate", "threads": 3, "memory": 1 << 33}
        assert it.signature.name == repr(sorted(told.items()))


def test_nothing_of_the_servers_environment_reaches_the_process(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    with opened("model.description['signature'] = ' '.join(sorted(os.environ) + sys.path)") as it:
        assert "PATH" in it.signature.name.split()
        assert not {"TOKEN", "PYTHONPATH", str(tmp_path)} & set(it.signature.name.split())


def test_what_the_process_prints_and_reads_is_not_the_conversation(opened: Opener) -> None:
    body = """
def load(request):
    # Standard input was the socket until it had told what to load.
    assert sys.stdin.read() == ""
    print("hello", flush=True)
    return model
model.run = lambda x: (print("hello", flush=True), x)[1]
"""
    with opened(body) as it:
        assert it.runner().invoke([ROW])[0].tolist() == ROW.tolist()


# What goes wrong with a request


def test_a_failure_of_the_model_is_told_in_one_line_and_the_process_goes_on(opened: Opener) -> None:
    body = """
def run(x):
    if x[0, 0] < 0:
        raise ValueError("Graph error:\\n\\nAt node G\\nindices[0] = 5 is not in [0, 3)\\n\\t [[{{node G}}]]")
    return x
model.run = run
"""
    with opened(body) as it:
        runner = it.runner()
        before = pid_of(runner)

        assert refusal(lambda: runner.invoke([DIES])) == "TensorFlow failed: indices[0] = 5 is not in [0, 3)"
        assert pid_of(runner) == before


@pytest.mark.parametrize("what", ["inputs", "outputs"])
def test_too_large_tensors_are_refused_and_the_process_goes_on(
    opened: Opener, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    body = "child_server.frames.MOST_BYTES = 100\nmodel.run = lambda x: x.repeat(1 + 30 * (x[0, 0] < 0), 0)"
    with opened(body) as it:
        runner = it.runner()
        before = pid_of(runner)
        monkeypatch.setattr(frames, "MOST_BYTES", 100)

        inputs = DIES if what == "outputs" else ROW.repeat(20, 0)
        assert refusal(lambda: runner.invoke([inputs])).endswith("have 0 MiB, and may have 0")
        assert pid_of(runner) == before


@pytest.mark.parametrize(
    "answer",
    [
        "[x]",
        "[x, x]",
        "[x.astype(np.float64), np.zeros(1, np.int64)]",
        "[x, np.zeros(1, np.int64), x]",
        "[np.array([[b'a']], object), np.zeros(1, np.int64)]",
        "[x, np.zeros(1, 'datetime64[s]')]",
    ],
)
def test_an_answer_that_is_none_ends_the_process(opened: Opener, answer: str) -> None:
    body = f"good = model.invoke\nmodel.invoke = lambda i: (lambda x: {answer})(*i) if i[0][0, 0] < 0 else good(i)"
    with opened(body) as it:
        runner = it.runner()
        before = pid_of(runner)

        assert refusal(lambda: runner.invoke([DIES])).startswith("the TensorFlow process sent what is no answer: ")
        assert not is_running(before)
        assert pid_of(runner) != before


def test_an_invoke_that_takes_too_long_ends_the_process(opened: Opener) -> None:
    body = "model.run = lambda x: x if x[0, 0] > 0 else threading.Event().wait()"
    with opened(body, invoke_seconds=0.05) as it:
        before = it._process
        assert before is not None

        assert refusal(lambda: it.runner().invoke([DIES])) == (
            "TensorFlow took longer than the 0.05 s that it may for one request, and has been ended"
        )
        assert not is_running(before._child.pid)
        # What is well has time to be so on a busy machine.
        it._invoke_seconds = 60.0
        assert pid_of(it.runner()) != before._child.pid


# Death and a new process


def test_a_death_fails_the_invoke_under_way_and_the_next_has_a_new_process(opened: Opener) -> None:
    with opened(FAILS) as it:
        runner, other = it.runner(), it.runner()
        before = pid_of(other)

        assert refusal(lambda: runner.invoke([DIES])) == (
            "the TensorFlow process died of SIGABRT (its last words: the roof is on fire)"
        )
        after = pid_of(other)
        assert after != before
        assert pid_of(runner) == after


def test_a_death_between_invokes_is_nobodys(opened: Opener) -> None:
    with opened() as it:
        runner = it.runner()
        before = pid_of(runner)
        gone = os.pidfd_open(before)
        os.kill(before, signal.SIGKILL)
        select.select([gone], [], [])
        os.close(gone)

        assert pid_of(runner) != before


def test_runners_that_wait_for_a_new_process_share_it(opened: Opener, tmp_path: Path) -> None:
    with opened(FAILS + "open(HERE + '/starts', 'a').write('.')") as it, ThreadPoolExecutor(4) as threads:
        runners = [it.runner() for _ in range(4)]
        refusal(lambda: runners[0].invoke([DIES]))

        assert len(set(threads.map(pid_of, runners))) == 1
        assert (tmp_path / "starts").read_text() == ".."


def test_three_deaths_within_a_minute_are_the_last(opened: Opener, tmp_path: Path) -> None:
    with opened(FAILS + "open(HERE + '/starts', 'a').write('.')") as it:
        runner = it.runner()
        for _ in range(3):
            assert it.failed is None
            refusal(lambda: runner.invoke([DIES]))

        told = refusal(lambda: runner.invoke([ROW]))
        assert told == it.failed
        assert told == (
            "the model is not run any more until it is loaded again, because its TensorFlow process died 3 times "
            "within 60 s; the last time the TensorFlow process died of SIGABRT (its last words: the roof is on fire)"
        )
        assert refusal(lambda: it.runner().invoke([ROW])) == told
        assert (tmp_path / "starts").read_text() == "..."


def test_deaths_that_lie_further_apart_are_forgiven(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = count(0, 30)
    monkeypatch.setattr(engine, "monotonic", lambda: next(clock))
    with opened(FAILS) as it:
        runner = it.runner()
        for _ in range(4):
            refusal(lambda: runner.invoke([DIES]))

        assert it.failed is None
        assert runner.invoke([ROW])[0].tolist() == [[2, 4]]


def test_a_process_that_dies_under_several_counts_once(opened: Opener) -> None:
    body = """
meeting = threading.Barrier(3)
def run(x):
    if x[0, 0] < 0 and meeting.wait() == 0:
        os.abort()
    if x[0, 0] < 0:
        threading.Event().wait()
    return x
model.run = run
"""
    with opened(body) as it, ThreadPoolExecutor(3) as threads:
        runners = [it.runner() for _ in range(3)]
        told = list(threads.map(lambda runner: refusal(lambda: runner.invoke([DIES])), runners))

        assert told == ["the TensorFlow process died of SIGABRT"] * 3
        assert it.failed is None
        assert pid_of(runners[0]) == pid_of(runners[1])


def test_a_model_that_is_another_when_it_is_loaded_again_is_not_run(opened: Opener) -> None:
    name = "open(HERE + '/starts', 'a').write('.')\nmodel.description['signature'] = open(HERE + '/starts').read()"
    with opened(FAILS + name) as it:
        runner = it.runner()
        refusal(lambda: runner.invoke([DIES]))

        assert "another signature" in refusal(lambda: runner.invoke([ROW]))


# What goes wrong with loading


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("    raise ValueError('the model is\\n' + 'bad')", "ValueError: the model is"),
        ("    os.abort()", "the TensorFlow process died of SIGABRT while it loaded the model"),
        ("    os._exit(3)", "the TensorFlow process exited with 3 while it loaded the model"),
        (
            "    print('no\\n\\nmemory', file=sys.stderr, flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)",
            "the TensorFlow process died of SIGKILL (its last words: memory) while it loaded the model",
        ),
        (
            "    raise MemoryError",
            f"TensorFlow needs more than the {16 << 10} MiB that it may use",
        ),
    ],
)
def test_why_a_model_is_not_loaded(opened: Opener, body: str, reason: str) -> None:
    assert refusal(lambda: opened(f"def load(request):\n{body}")) == reason


def test_loading_that_takes_too_long_ends_the_process(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[EngineProcess] = []

    def start() -> EngineProcess:
        started.append(EngineProcess())
        return started[-1]

    monkeypatch.setattr(engine, "EngineProcess", start)
    told = refusal(lambda: opened("def load(request):\n    threading.Event().wait()", load_seconds=0.5))

    assert told == "TensorFlow took longer than the 0.5 s that it may for starting and loading the model"
    (process,) = started
    assert not is_running(process._child.pid)


@pytest.mark.parametrize(
    "change",
    [
        "{'signature': None}",
        "{'inputs': None}",
        "{'inputs': [['x', 'float32']]}",
        "{'inputs': [['x', 'float32', [-2]]]}",
        "{'inputs': [['x', 'float32', [True]]]}",
        "{'inputs': [['x', 'float32', [1.5]]]}",
        "{'inputs': [['x', 'float32', [1 << 40]]]}",
        "{'inputs': [['x', 'float128', [1]]]}",
        "{'inputs': [[7, 'float32', [1]]]}",
        "{'outputs': 'y'}",
        "{'stateful': 'no'}",
    ],
)
def test_what_is_no_signature_is_refused(opened: Opener, change: str) -> None:
    assert refusal(lambda: opened(f"model.description |= {change}")) == "the TensorFlow process told no signature"


def test_a_model_without_outputs_is_refused(opened: Opener) -> None:
    assert "1 inputs and 0 outputs" in refusal(lambda: opened("model.description['outputs'] = []"))


def test_a_process_that_cannot_be_started_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))

    assert refusal(lambda: Engine(tmp_path)) == "the TensorFlow process cannot be started: No such file or directory"


# The end


def test_closing_ends_the_process_and_what_is_under_way(opened: Opener, fifo: Path) -> None:
    body = f"model.run = lambda x: (open({str(fifo)!r}, 'w').write(str(os.getpid())), threading.Event().wait())"
    with opened(body) as it, ThreadPoolExecutor(1) as threads:
        runner = it.runner()
        under_way = threads.submit(refusal, lambda: runner.invoke([ROW]))
        pid = int(fifo.read_text())

        it.close()

        assert not is_running(pid)
        assert under_way.result() == "the model is not loaded any more"
        assert refusal(lambda: runner.invoke([ROW])) == "the model is not loaded any more"
        it.close()


def test_closing_ends_a_new_process_that_still_loads(opened: Opener, fifo: Path) -> None:
    body = f"""
def load(request):
    open(HERE + "/starts", "a").write(".")
    if len(open(HERE + "/starts").read()) > 1:
        open({str(fifo)!r}, "w").write(str(os.getpid()))
        threading.Event().wait()
    return model
"""
    with opened(FAILS + body) as it, ThreadPoolExecutor(1) as threads:
        runner = it.runner()
        refusal(lambda: runner.invoke([DIES]))
        starting = threads.submit(refusal, lambda: runner.invoke([ROW]))
        pid = int(fifo.read_text())

        it.close()

        assert not is_running(pid)
        assert starting.result().startswith("the model is not loaded any more")


def test_the_process_ends_with_the_engine_and_its_runners(opened: Opener) -> None:
    it = opened().thing  # type: ignore[attr-defined]
    runner = it.runner()
    pid = pid_of(runner)
    known = weakref.ref(it)
    del it
    gc.collect()
    assert pid_of(runner) == pid

    del runner
    gc.collect()

    assert known() is None
    assert not is_running(pid)


def test_the_process_ends_with_the_server_also_while_it_loads(tmp_path: Path, fifo: Path) -> None:
    body = f"def load(request):\n    open({str(fifo)!r}, 'w').write(str(os.getpid()))\n    threading.Event().wait()\n"
    program = f"""
import pathlib, pytest
from app.runtime.engine import Engine
from tests.runtime import engine_stand_in
engine_stand_in.install(pytest.MonkeyPatch(), pathlib.Path({str(tmp_path)!r}), {body!r})
Engine(pathlib.Path("."))
"""
    server = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    gone = os.pidfd_open(int(fifo.read_text()))
    server.kill()
    server.wait()

    ready, _, _ = select.select([gone], [], [], 30)

    os.close(gone)
    assert ready


def test_nothing_is_left_open_or_lying_about(opened: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))

    def descriptors() -> int:
        gc.collect()
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

    def live() -> None:
        with opened(FAILS) as it:
            runners = [it.runner() for _ in range(3)]
            assert list((tmp_path / "temporary").iterdir())
            for runner in runners:
                assert runner.invoke([ROW])[0].tolist() == [[2, 4]]
            refusal(lambda: runners[0].invoke([DIES]))
            assert runners[1].invoke([ROW])[0].tolist() == [[2, 4]]
        refusal(lambda: opened("def load(request):\n    raise ValueError"))

    threads = threading.active_count()
    live()
    before = descriptors()
    live()

    # Of what tests before have left some may go meanwhile.
    assert descriptors() <= before
    assert not list((tmp_path / "temporary").iterdir())
    assert threading.active_count() <= threads


def test_a_runner_that_is_gone_ends_its_thread_in_the_process(opened: Opener) -> None:
    with opened("model.run = lambda x: x * threading.active_count()") as it:
        first = it.runner()
        alone = float(first.invoke([ROW])[0][0, 0])
        for _ in range(5):
            assert float(it.runner().invoke([ROW])[0][0, 0]) >= alone + 1
        counts = (float(first.invoke([ROW])[0][0, 0]) for _ in range(100_000))

        assert any(found == alone for found in counts)


def test_arrays_are_the_callers_own(opened: Opener) -> None:
    with opened() as it:
        runner = it.runner()
        first: Array = runner.invoke([ROW])[0]
        runner.invoke([ROW * 5])

        assert first.tolist() == [[2, 4]]

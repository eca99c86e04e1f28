"""Models opened in a process that may crash."""

import gc
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from app.errors import ModelError
from app.repository import trial as trials
from app.repository import trial_child
from app.repository.arrays import save_arrays
from app.repository.cache import Cache
from app.repository.examine import examine
from app.repository.parity import Difference, Parity
from app.repository.trial import Question, Trial
from app.runtime.contract import BatchClass
from tests import tflite
from tests.repository import stand_in
from tests.repository.test_conversion_child import landlock

FACTS = Path("/proc/cpuinfo")
PLAIN = Question()
MEMORY = 4 << 30


def put(folder: Path, content: bytes) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.tflite"
    path.write_bytes(content)
    return path


def refusal(trial: Trial, model: Path | bytes, question: Question = PLAIN) -> str:
    with pytest.raises(ModelError) as caught:
        trial.of(model, question)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Trial]]:
    """Makes trials of a test's own."""
    made: list[Trial] = []

    def make(folder: Path | None = None, seconds: float = 60.0, memory: int = MEMORY) -> Trial:
        made.append(Trial(Cache(folder or tmp_path_factory.mktemp("cache")), seconds, memory))
        return made[-1]

    yield make
    for trial in made:
        trial.close()


@pytest.fixture
def with_child(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """From now on children run some lines before they wait for requests, with `trial_child` imported."""
    original = trials._CHILD

    def install(lines: str) -> None:
        place = original.index("trial_child.main()")
        monkeypatch.setattr(
            trials, "_CHILD", original[:place] + "import os, signal\n" + lines + "\n" + original[place:]
        )

    return install


# What is found


def test_what_was_found_of_a_model_is_told(tmp_path: Path) -> None:
    found = stand_in.trial().of(put(tmp_path, tflite.affine()), PLAIN)

    (signature,) = found.signatures
    assert found.left_out == {}
    assert signature.name == "serving_default"
    assert signature.contract.batch_class is BatchClass.MERGED
    assert signature.profile.invoke_us[1] > 0
    assert signature.parity is None
    assert [array.tolist() for array in signature.example] == [[[0.0] * 4]]


def test_a_model_is_opened_once_by_its_content_and_not_by_its_name(tmp_path: Path, own: Callable[..., Trial]) -> None:
    first, second = put(tmp_path, tflite.affine()), put(tmp_path, tflite.affine())
    found = own(tmp_path / "cache").of(first, PLAIN)
    other = own(tmp_path / "cache")

    again = other.of(second, PLAIN)

    assert again.signatures[0].profile == found.signatures[0].profile
    assert other._process is None, "nothing was opened"


@pytest.mark.parametrize("question", [Question(threads=2), Question(rows_independent=True)])
def test_another_question_is_asked_anew(tmp_path: Path, own: Callable[..., Trial], question: Question) -> None:
    model = put(tmp_path, tflite.maximum_over_batch())
    trial = own(tmp_path / "cache")
    found = trial.of(model, PLAIN).signatures[0]

    again = trial.of(model, question).signatures[0]

    assert again.profile != found.profile
    assert again.contract.merges is question.rows_independent


def test_another_machine_finds_for_itself(
    tmp_path: Path, own: Callable[..., Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = put(tmp_path, tflite.affine())
    trial = own(tmp_path / "cache")
    found = trial.of(model, PLAIN)
    monkeypatch.setattr(trials, "machine", lambda: "another")

    assert trial.of(model, PLAIN).signatures[0].profile != found.signatures[0].profile


def test_a_model_that_is_held_in_memory_is_opened_too(own: Callable[..., Trial]) -> None:
    assert own().of(tflite.affine(), PLAIN).signatures[0].contract.merges


def test_a_cache_that_cannot_be_written_costs_only_the_next_opening(tmp_path: Path, own: Callable[..., Trial]) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")

    assert own(tmp_path / "cache").of(put(tmp_path, tflite.affine()), PLAIN).signatures[0].contract.merges


def test_several_threads_may_ask_at_once(tmp_path: Path) -> None:
    models = [put(tmp_path, tflite.affine(float(number))) for number in range(8)]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda model: stand_in.trial().of(model, PLAIN), models))

    assert all(one.signatures[0].contract.merges for one in found)


# What is refused, and takes nobody with it


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (tflite.truncated(tflite.affine()), ""),
        (b"", ""),
        (b"none at all, but of some length", ""),
        (tflite.bomb(300), ""),
        (tflite.never_runs(), "it does not run: "),
    ],
)
def test_a_file_that_cannot_be_served_is_refused_in_one_sentence(tmp_path: Path, content: bytes, sentence: str) -> None:
    assert refusal(stand_in.trial(), put(tmp_path, content)).startswith(sentence)


@pytest.mark.slow
def test_of_a_model_damaged_in_500_places_none_takes_anybody_with_it(tmp_path: Path) -> None:
    sound = tflite.two_in_two_out()
    generator = np.random.default_rng(500)
    trial = stand_in.trial()
    trial.of(put(tmp_path, sound), PLAIN)
    process = trial._process
    models = []
    for number, place in enumerate(generator.integers(0, 8 * len(sound), 500)):
        content = bytearray(sound)
        content[place // 8] ^= 1 << place % 8
        (tmp_path / f"damaged-{number}.tflite").write_bytes(content)
        models.append(tmp_path / f"damaged-{number}.tflite")

    def reason(model: Path) -> str:
        try:
            trial.of(model, PLAIN, keep=False)
        except ModelError as error:
            return error.message
        return ""

    with ThreadPoolExecutor(2) as threads:
        reasons = list(threads.map(reason, models))

    assert 0 < reasons.count("") < 500
    assert not [found for found in reasons if "\n" in found or "nobody foresaw" in found or "ended without" in found]
    assert trial._process is process
    assert process is not None
    assert process.poll() is None


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGFPE", "SIGILL", "SIGBUS"])
def test_a_model_that_crashes_the_interpreter_is_refused_with_how_it_did(
    tmp_path: Path, own: Callable[..., Trial], with_child: Callable[[str], None], name: str
) -> None:
    with_child(f"trial_child.examine = lambda *_: os.kill(os.getpid(), signal.{name})")

    assert refusal(own(), put(tmp_path, tflite.affine())) == (
        f"opening it crashes the interpreter ({name}): the file is damaged or hostile"
    )


def test_after_a_crash_the_next_model_is_opened_by_the_same_process(
    tmp_path: Path, own: Callable[..., Trial], with_child: Callable[[str], None]
) -> None:
    with_child(
        "examine = trial_child.examine\n"
        "trial_child.examine = lambda model, *rest: os.abort() if 'bad' in model.name else examine(model, *rest)"
    )
    trial = own()
    bad = tmp_path / "bad.tflite"
    bad.write_bytes(tflite.affine(7.0))
    trial.of(put(tmp_path, tflite.affine()), PLAIN)
    process = trial._process

    assert refusal(trial, bad) == (
        "opening it crashes the interpreter (SIGABRT): the file is damaged or hostile, or needs more than the 4096 MiB "
        "of memory that it may use"
    )
    assert trial.of(put(tmp_path, tflite.affine(3.0)), PLAIN).signatures[0].contract.merges
    assert trial._process is process


def test_a_model_that_never_ends_is_ended(
    tmp_path: Path, own: Callable[..., Trial], with_child: Callable[[str], None]
) -> None:
    pid = tmp_path / "pid"
    os.mkfifo(pid)
    with_child(
        f"def stay(model, request, out):\n"
        f"    open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        f"    signal.pause()\n"
        f"trial_child.fence = None\n"
        f"trial_child._confine = lambda request: None\n"
        f"trial_child.examine = stay"
    )
    trial = own(seconds=1.0)
    model = put(tmp_path, tflite.affine())

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(refusal, trial, model)
        stuck = int(pid.read_text())
        assert asked.result() == "opening it took longer than the 1 s it may"

    assert not is_running(stuck)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_more_memory_than_a_model_may_use_is_told_as_such(
    tmp_path: Path, own: Callable[..., Trial], with_child: Callable[[str], None]
) -> None:
    with_child("trial_child.examine = lambda *_: bytearray(1 << 40)")

    assert refusal(own(), put(tmp_path, tflite.affine())) == "it needs more than the 4096 MiB of memory that it may use"


def test_a_fault_of_ours_is_logged_and_no_secret_of_it_told(
    tmp_path: Path, own: Callable[..., Trial], with_child: Callable[[str], None], caplog: pytest.LogCaptureFixture
) -> None:
    with_child("trial_child.examine = lambda *_: 1 / 0")

    assert refusal(own(), put(tmp_path, tflite.affine())) == (
        "opening it failed in a way that nobody foresaw: the log has more"
    )
    assert "ZeroDivisionError" in caplog.text


def test_a_process_that_ends_without_a_result_is_told(
    tmp_path: Path, own: Callable[..., Trial], with_child: Callable[[str], None]
) -> None:
    with_child("trial_child.examine = lambda *_: os._exit(3)")

    message = refusal(own(), put(tmp_path, tflite.affine()))

    assert message == "the process that opens it ended without a result ({'exit': 3})"


def test_a_model_can_write_nowhere_but_beside_its_result(
    tmp_path: Path, own: Callable[..., Trial], with_child: Callable[[str], None]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    with_child(
        f"def reach(model, request, out):\n"
        f"    (out / 'example.npz').write_bytes(b'')\n"
        f"    faults = []\n"
        f"    for mode in 'rw':\n"
        f"        try:\n            open({str(secret)!r}, mode)\n"
        f"        except PermissionError:\n            faults.append(mode)\n"
        f"    raise ModelError(''.join(faults))\n"
        f"from app.errors import ModelError\n"
        f"trial_child.examine = reach"
    )

    assert refusal(own(), put(tmp_path, tflite.affine())) == "rw"
    assert secret.read_text() == "hunter2"


def by_eight_matrices() -> bytes:
    """`y0` to `y7`, each [-1, 32], are `x`, [-1, 256], times a matrix of noise each."""
    graph = tflite.Graph()
    x = graph.tensor("x", (-1, 256))
    noise = np.random.default_rng(3).standard_normal((8, 32, 256))
    outputs = {f"y{place}": graph.tensor(f"y{place}", (-1, 32)) for place in range(8)}
    for number, matrix in zip(outputs.values(), noise, strict=True):
        graph.operator("FULLY_CONNECTED", [x, graph.constant(matrix)], [number])
    return graph.build({"x": x}, outputs)


class Fingerprint(NamedTuple):
    """To the last bit the largest answers of several sums: kernels for other processors add in another order."""

    here: dict[str, Difference]
    in_the_child: dict[str, Difference]


def fingerprint(folder: Path, trial: Trial) -> Fingerprint:
    model = put(folder, by_eight_matrices())
    arrays = {f"out_0_{place}": np.zeros((6, 32), np.float32) for place in range(8)}
    noise = np.random.default_rng(4).standard_normal((6, 256)).astype(np.float32)
    save_arrays(folder / "parity.npz", {"in_0_0": noise, **arrays})
    signature = {**stand_in.SIGNATURES[0], "rows": 6, "outputs": [f"y{place}" for place in range(8)]}
    question = Question(tolerance=np.inf, reference=folder / "parity.npz", references=[signature])
    request = asdict(question) | {"reference": str(folder / "parity.npz")}
    here = Parity.from_json(examine(model, request, folder)["signatures"][0]["parity"])
    found = trial.of(model, question).signatures[0].parity
    assert found is not None
    return Fingerprint(here.differences, found.differences)


def test_a_model_is_opened_with_the_kernels_that_will_serve_it(tmp_path: Path, own: Callable[..., Trial]) -> None:
    found = fingerprint(tmp_path, own())

    assert found.in_the_child == found.here


@pytest.mark.skipif(not FACTS.exists() or "avx" not in FACTS.read_text(), reason="there is one kind of kernel only")
def test_without_what_the_fence_lets_be_read_of_the_processor_the_kernels_would_be_others(
    tmp_path: Path, own: Callable[..., Trial], with_child: Callable[[str], None]
) -> None:
    if not landlock():
        pytest.skip("this kernel has no Landlock")
    with_child(
        "sys.path.insert(0, os.path.join(os.path.dirname(trial_child.__file__), 'conversion_child'))\n"
        "import child_sandbox\n"
        "child_sandbox._SYSTEM_FACTS = ('/proc/self',)"
    )

    found = fingerprint(tmp_path, own())

    assert found.in_the_child != found.here


# The process's own life


def test_a_process_that_was_killed_is_started_again(tmp_path: Path, own: Callable[..., Trial]) -> None:
    trial = own()
    trial.of(put(tmp_path, tflite.affine()), PLAIN)
    assert trial._process is not None
    os.kill(trial._process.pid, signal.SIGKILL)
    trial._process.wait()

    assert trial.of(put(tmp_path, tflite.affine(3.0)), PLAIN).signatures[0].contract.merges


def test_a_process_that_is_not_asked_anything_ends_and_is_started_again(
    tmp_path: Path, own: Callable[..., Trial], with_child: Callable[[str], None]
) -> None:
    with_child("trial_child._IDLE_SECONDS = 0.2")
    trial = own()
    trial.of(put(tmp_path, tflite.affine()), PLAIN)
    assert trial._process is not None

    assert trial._process.wait(60) == 0
    assert trial.of(put(tmp_path, tflite.affine(3.0)), PLAIN).signatures[0].contract.merges


def test_a_process_that_cannot_even_start_is_told(
    tmp_path: Path, own: Callable[..., Trial], with_child: Callable[[str], None]
) -> None:
    with_child("os._exit(1)")

    assert refusal(own(), put(tmp_path, tflite.affine())) == "the process that opens models does not answer"


def test_close_ends_what_is_under_way_and_nothing_more_is_opened(
    tmp_path: Path, own: Callable[..., Trial], with_child: Callable[[str], None]
) -> None:
    pid = tmp_path / "pid"
    os.mkfifo(pid)
    with_child(
        f"def stay(*_):\n"
        f"    print(os.getpid(), file=open({str(pid)!r}, 'w'), flush=True)\n"
        f"    signal.pause()\n"
        f"trial_child._confine = lambda request: None\n"
        f"trial_child.examine = stay"
    )
    trial = own()
    model = put(tmp_path, tflite.affine())

    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(refusal, trial, model)
        stuck = int(pid.read_text())
        watch = os.pidfd_open(stuck)
        trial.close()
        assert asked.result() == "the server is shutting down"

    assert ends(watch)
    assert refusal(trial, model) == "the server is shutting down"
    assert trial._asking == set()


def ends(pidfd: int) -> bool:
    """Wait for the end of a process that is not ours to wait for."""
    try:
        return bool(select.select([pidfd], [], [], 30)[0])
    finally:
        os.close(pidfd)


def test_asking_leaves_no_descriptor_and_no_thread_behind(tmp_path: Path) -> None:
    trial = stand_in.trial()
    trial.of(put(tmp_path, tflite.affine()), PLAIN)
    # Of what tests before have left some may go meanwhile.
    gc.collect()
    descriptors, threads = len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    for number in range(20):
        trial.of(put(tmp_path, tflite.affine(float(number))), PLAIN, keep=False)
        refusal(trial, put(tmp_path, tflite.truncated(tflite.affine())))

    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors
    assert threading.active_count() <= threads


def test_nothing_of_the_servers_environment_reaches_a_model(
    tmp_path: Path, own: Callable[..., Trial], with_child: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
    with_child(
        "from app.errors import ModelError\n"
        "def look(*_): raise ModelError(repr(dict(os.environ)))\n"
        "trial_child.examine = look"
    )

    assert "hunter2" not in refusal(own(), put(tmp_path, tflite.affine()))


def test_the_child_is_this_repositorys_own() -> None:
    assert str(Path(trial_child.__file__).parents[2]) in trials._CHILD

"""How the conversion child is started, followed and ended. What it does itself is in test_conversion_child.py."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import pytest
from filelock import FileLock

from app.errors import ModelError
from app.repository import convert
from app.repository.cache import Entry
from app.repository.convert import Converter, installed_tensorflow
from app.repository.layout import Kind, Source
from app.repository.model_config import ModelConfig
from tests import tflite
from tests.repository import stand_in

PLAIN = ModelConfig()


@pytest.fixture(autouse=True)
def _tensorflow_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert, "installed_tensorflow", lambda: "2.21.0")


def silent(stage: str) -> None:
    pass


def run(tmp_path: Path, timeout: float = 60.0, config: ModelConfig = PLAIN) -> Entry:
    return stand_in.converter(tmp_path, timeout).convert(stand_in.model(tmp_path), config, {}, silent)


def refusal(tmp_path: Path, timeout: float = 60.0) -> str:
    with pytest.raises(ModelError) as caught:
        run(tmp_path, timeout)
    assert "\n" not in caught.value.message
    return caught.value.message


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# What it is told, and what it tells


def test_the_child_is_told_all_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, "done(request=request)")
    source = stand_in.model(tmp_path)
    config = ModelConfig(quantization="dynamic")

    request = stand_in.converter(tmp_path, memory=3 << 30).convert(source, config, {}, silent).report["request"]

    assert request.pop("out").startswith(str(tmp_path / "cache"))
    assert request == {
        "source": str(source.path),
        "kind": "keras",
        "variants": ["dynamic"],
        "samples": None,
        "calibration": None,
        "memory": 3 << 30,
        "parent": os.getpid(),
    }


def test_the_report_and_the_files_become_an_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, "done(more='told')")

    entry = run(tmp_path)

    report = entry.report
    assert (report["more"], report["rung"], report["quantization"]) == ("told", "plain", "none")
    assert report["variants"]["none"]["served"] is True
    assert entry.model.read_bytes() == (tmp_path / "made" / "model.tflite").read_bytes()
    assert sorted(path.name for path in entry.folder.iterdir()) == [
        "model.tflite", "parity.npz", "report.json", "sha256.json"
    ]  # fmt: skip


def test_stages_are_told_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, "for stage in 'abc': say(stage=stage)\ndone()")
    stages: list[str] = []

    stand_in.converter(tmp_path).convert(stand_in.model(tmp_path), PLAIN, {}, stages.append)

    assert stages == ["a", "b", "c", "checking the converted model"]


def test_a_stage_is_told_while_the_child_still_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "go")
    stand_in.install(monkeypatch, tmp_path, f"say(stage='waits')\nopen({str(tmp_path / 'go')!r}).close()\ndone()")

    def let_it_go(stage: str) -> None:
        if stage == "waits":
            (tmp_path / "go").open("w").close()

    assert (
        stand_in.converter(tmp_path).convert(stand_in.model(tmp_path), PLAIN, {}, let_it_go).report["rung"] == "plain"
    )


def test_the_childs_own_reason_is_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, "say(error='it holds a Lambda layer')")

    assert refusal(tmp_path) == "it holds a Lambda layer"


def test_a_model_is_converted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, f"open({str(tmp_path / 'count')!r}, 'a').write('1')\ndone()")
    source = stand_in.model(tmp_path)
    converter = stand_in.converter(tmp_path)

    assert not converter.has(source)
    first = converter.convert(source, PLAIN, {}, silent)

    assert converter.has(source)
    assert stand_in.converter(tmp_path).convert(source, PLAIN, {}, silent) == first
    assert (tmp_path / "count").read_text() == "1"


@pytest.mark.parametrize(
    "change", ["content", "quantization", "tolerance", "samples", "tensorflow", "keras", "revision"]
)
def test_whatever_shapes_the_result_makes_it_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    stand_in.install(monkeypatch, tmp_path, f"open({str(tmp_path / 'count')!r}, 'a').write('1')\ndone()")
    source, config = replace(stand_in.model(tmp_path), folder=tmp_path), PLAIN
    stand_in.converter(tmp_path).convert(source, config, {}, silent)

    if change == "content":
        source.path.write_bytes(b"another model")
    elif change == "quantization":
        config = ModelConfig(quantization="float16")
    elif change == "tolerance":
        config = ModelConfig(tolerance=0.5)
    elif change == "samples":
        (tmp_path / "samples.json").write_text("[]")
    elif change == "tensorflow":
        monkeypatch.setattr(convert, "installed_tensorflow", lambda: "2.22.0")
    elif change == "keras":
        monkeypatch.setattr(convert, "_version", lambda distribution: "4.0")
    else:
        monkeypatch.setattr(convert, "REVISION", "next")
    stand_in.converter(tmp_path).convert(source, config, {}, silent)

    assert (tmp_path / "count").read_text() == "11"


def test_a_name_and_labels_do_not_shape_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, f"open({str(tmp_path / 'count')!r}, 'a').write('1')\ndone()")

    stand_in.converter(tmp_path).convert(stand_in.model(tmp_path), PLAIN, {}, silent)
    config = ModelConfig(class_labels=["a"], description="d")
    stand_in.converter(tmp_path).convert(stand_in.model(tmp_path, "renamed"), config, {}, silent)

    assert (tmp_path / "count").read_text() == "1"


def test_a_model_that_changes_while_it_is_converted_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install(monkeypatch, tmp_path, "Path(request['source']).write_bytes(b'half of the next')\ndone()")

    assert refusal(tmp_path) == "m.keras changed while it was converted: start again"
    assert not list((tmp_path / "cache").rglob("model.tflite"))


def test_a_model_that_is_gone_is_an_error_that_names_it(tmp_path: Path) -> None:
    source = stand_in.model(tmp_path)
    source.path.unlink()
    converter = stand_in.converter(tmp_path)

    with pytest.raises(ModelError, match=r"^m\.keras cannot be read: No such file or directory$"):
        converter.convert(source, PLAIN, {}, silent)
    # It will fail at once, so it is not one to wait for.
    assert converter.has(source)


def test_a_tflite_file_and_a_wrong_model_toml_need_no_conversion_to_tell(tmp_path: Path) -> None:
    source = stand_in.model(tmp_path)
    (tmp_path / "model.toml").write_text("=")
    converter = stand_in.converter(tmp_path)

    assert converter.has(Source("m", 1, Kind.TFLITE, tmp_path / "m.tflite", None))
    assert converter.has(Source("m", 1, Kind.KERAS, source.path, tmp_path))
    assert not converter.has(source)


# Without TensorFlow


def test_without_tensorflow_the_last_entry_of_any_version_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install(monkeypatch, tmp_path, "done(made=True)")
    made = run(tmp_path)
    monkeypatch.setattr(convert, "installed_tensorflow", lambda: None)
    monkeypatch.setattr(convert, "_CHILD", tmp_path / "nothing")

    assert run(tmp_path) == made
    assert stand_in.converter(tmp_path).has(stand_in.model(tmp_path))


def test_without_tensorflow_and_without_an_entry_both_cures_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "installed_tensorflow", lambda: None)

    assert refusal(tmp_path) == (
        "m.keras is not in the cache of converted models, and TensorFlow is not installed to convert it: "
        "install litepool[convert], or convert it elsewhere with `litepool convert`"
    )


def test_tensorflow_is_found_under_any_of_its_names_and_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "tensorflow-macos":
            return "2.19"
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", version)

    assert installed_tensorflow() == "2.19"
    monkeypatch.setattr(convert, "_DISTRIBUTIONS", ("tensorflow",))
    assert installed_tensorflow() is None
    assert "tensorflow" not in sys.modules


# A child that fails


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGKILL", "SIGABRT"])
def test_a_child_that_dies_leaves_a_reason_with_its_signal_and_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    body = f"print('long ago', 'at last', sep='\\n', file=sys.stderr, flush=True)\nos.kill(os.getpid(), signal.{name})"
    stand_in.install(monkeypatch, tmp_path, body)

    assert refusal(tmp_path) == (
        f"the conversion process died of {name}, with 4096 MiB that it might use, without a result; "
        "its last words: at last"
    )


def test_a_child_that_ends_without_a_word_leaves_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, "sys.exit(3)")

    assert refusal(tmp_path) == "the conversion process exited with 3 without a result"


def test_a_child_that_does_not_even_read_its_request_leaves_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hung_up = tmp_path / "hung up"
    os.mkfifo(hung_up)
    program = tmp_path / "mute.py"
    program.write_text(f"import os; os.close(0); open({str(hung_up)!r}, 'w').close(); os._exit(4)")
    monkeypatch.setattr(convert, "_CHILD", program)
    say = convert._say

    def say_when_it_hung_up(stream: IO[str], message: dict[str, Any]) -> None:
        hung_up.read_bytes()  # its end comes when the child has closed its input
        say(stream, message)

    monkeypatch.setattr(convert, "_say", say_when_it_hung_up)

    assert refusal(tmp_path) == "the conversion process exited with 4 without a result"


def test_a_child_that_cannot_be_started_leaves_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))

    assert refusal(tmp_path) == "the conversion process cannot be started: No such file or directory"


@pytest.mark.parametrize(
    "rubbish", [b"hello", b"\xff\xfe", b"5", b"null", b'{"stage": ', b"[1]", b"[" * 100_000], ids=lambda line: line[:9]
)
def test_rubbish_on_the_childs_output_is_a_reason_and_no_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rubbish: bytes
) -> None:
    (tmp_path / "rubbish").write_bytes(rubbish + b"\n")
    stand_in.install(
        monkeypatch, tmp_path, f"os.write(1, open({str(tmp_path / 'rubbish')!r}, 'rb').read())\nsignal.pause()"
    )

    message = refusal(tmp_path)

    assert message.startswith("the conversion process said what is no message: ")
    assert len(message) < 500


def test_a_line_without_an_end_is_not_gathered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, "while True: sys.stdout.write('x' * 65536)")

    assert refusal(tmp_path).startswith("the conversion process said what is no message: 'xxx")


def test_a_child_that_hangs_is_ended_by_the_timeout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, "signal.pause()")

    assert refusal(tmp_path, timeout=0.2) == (
        "the conversion took longer than the 0.2 s it may: "
        "give it more by --conversion-timeout or LITEPOOL_CONVERSION_TIMEOUT"
    )


def test_what_a_child_has_started_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The grandchild keeps the pipe open, so the parent would listen for ever.
    stand_in.install(monkeypatch, tmp_path, "if os.fork() == 0: signal.pause()\nos._exit(0)")

    assert refusal(tmp_path, timeout=1).startswith("the conversion took longer than the 1 s it may: ")


def test_after_a_failure_the_next_conversion_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, "os.abort()")
    refusal(tmp_path)
    stand_in.install(monkeypatch, tmp_path, "done()")

    assert run(tmp_path).report["rung"] == "plain"


# Closing


def test_close_ends_a_running_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, "say(stage=str(os.getpid()))\nsignal.pause()")
    converter = stand_in.converter(tmp_path)
    pids: list[int] = []
    started = threading.Event()

    def progress(stage: str) -> None:
        pids.append(int(stage))
        started.set()

    with ThreadPoolExecutor(1) as threads:
        conversion = threads.submit(converter.convert, stand_in.model(tmp_path), PLAIN, {}, progress)
        assert started.wait(60)
        converter.close()
        with pytest.raises(ModelError, match=r"^the server is shutting down$"):
            conversion.result()

    assert not is_running(pids[0])
    assert not list((tmp_path / "cache").rglob(".making-*"))


def test_after_close_no_child_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, "done()")
    converter = stand_in.converter(tmp_path)
    converter.close()

    with pytest.raises(ModelError, match=r"^the server is shutting down$"):
        converter.convert(stand_in.model(tmp_path), PLAIN, {}, silent)


def test_close_ends_the_wait_for_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, "done()")
    converter = stand_in.converter(tmp_path)
    entry = converter.convert(stand_in.model(tmp_path), PLAIN, {}, silent)
    entry.model.unlink()
    stages: list[str] = []

    def progress(stage: str) -> None:
        stages.append(stage)
        converter.close()

    with (
        FileLock(entry.folder.with_name(f"{entry.folder.name}.lock")),
        ThreadPoolExecutor(1) as threads,
        pytest.raises(ModelError, match=r"^the server is shutting down$"),
    ):
        threads.submit(converter.convert, stand_in.model(tmp_path), PLAIN, {}, progress).result()

    assert stages == ["waiting for another process that converts it"]


# What reaches it


def test_nothing_of_the_servers_environment_reaches_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "LITEPOOL_API_KEY", "PYTHONPATH", "LD_PRELOAD_NOT", "HOME"):
        monkeypatch.setenv(name, "hunter2")
    stand_in.install(monkeypatch, tmp_path, "done(environment=dict(os.environ), path=sys.path, cwd=os.getcwd())")

    report: dict[str, Any] = run(tmp_path).report

    assert "hunter2" not in str(report)
    work = report["cwd"]
    assert work.startswith(str(tmp_path / "cache"))
    assert report["environment"]["HOME"] == report["environment"]["TMPDIR"] == work
    assert not any(str(Path(convert.__file__).parent) == place for place in report["path"])


def test_the_child_has_none_of_the_servers_open_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(
        monkeypatch,
        tmp_path,
        "def opened(number):\n"
        "    try: return os.fstat(number).st_ino\n"
        "    except OSError: return None\n"
        "done(files=[opened(number) for number in range(3, 200)])",
    )
    with (tmp_path / "secret").open("w") as secret:
        inode = os.fstat(secret.fileno()).st_ino
        os.dup2(secret.fileno(), 150)
        os.set_inheritable(150, True)
        try:
            report = run(tmp_path).report
        finally:
            os.close(150)

    assert inode not in report["files"]


def test_a_converter_is_for_several_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, tmp_path, "done(source=request['source'])")
    converter: Converter = stand_in.converter(tmp_path)
    sources = [stand_in.model(tmp_path, name, name.encode()) for name in "abcd"]

    with ThreadPoolExecutor(4) as threads:
        entries = list(threads.map(lambda source: converter.convert(source, PLAIN, {}, silent), sources))

    assert [entry.report["source"] for entry in entries] == [str(source.path) for source in sources]


# Candidates


SECOND_TRY = f"""
why = ask('none', 'wrong.tflite')
ask('none', rung='frozen')
say(report={stand_in.REPORT!r} | dict(variants=dict(), why=why))
"""


def put_sum(folder: Path) -> None:
    """Beside what everything is converted to, a model that answers otherwise."""
    (folder / "made" / "wrong.tflite").write_bytes(tflite.affine(3.0))


def test_a_candidate_that_answers_otherwise_is_refused_and_the_next_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install(monkeypatch, tmp_path, SECOND_TRY)
    put_sum(tmp_path)

    report = run(tmp_path).report

    assert report["rung"] == "frozen"
    assert report["why"]["ok"] is False
    assert report["why"]["reason"].startswith("output 'y' differs from TensorFlow's by ")


def test_a_candidate_that_crashes_the_interpreter_is_refused_and_the_next_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.install(monkeypatch, tmp_path, SECOND_TRY)
    (tmp_path / "made" / "wrong.tflite").write_bytes(tflite.truncated(tflite.affine()))

    report = run(tmp_path).report

    assert (report["rung"], report["why"]["ok"]) == ("frozen", False)


def test_where_no_candidate_is_right_the_reasons_are_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "why = ask('none', 'wrong.tflite'); say(report={0!r} | dict(variants=dict(none=dict(error=why['reason']))))"
    stand_in.install(monkeypatch, tmp_path, body.format(stand_in.REPORT))
    put_sum(tmp_path)

    assert refusal(tmp_path).startswith("output 'y' differs from TensorFlow's by ")


DIES_OF_INT8 = """
(out / "work").mkdir()
with open({told!r}, "a") as told:
    told.write(" ".join(request["variants"]) + "\\n")
if "int8" in request["variants"]:
    ask("none")
    os.kill(os.getpid(), signal.SIGSEGV)
done()
"""


def test_a_variant_that_kills_the_child_is_left_out_and_the_others_are_converted_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    stand_in.install(monkeypatch, tmp_path, DIES_OF_INT8.format(told=str(told)))

    report = run(tmp_path, config=ModelConfig(quantization="auto")).report

    assert told.read_text().splitlines() == ["none float16 dynamic int8", "none float16 dynamic"]
    assert report["variants"]["int8"]["error"].startswith("the conversion process died of SIGSEGV, with ")
    assert [name for name, found in report["variants"].items() if "error" not in found] == [
        "none",
        "float16",
        "dynamic",
    ]
    assert report["quantization"] in ("none", "float16", "dynamic")


def test_a_child_that_dies_of_the_only_variant_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = tmp_path / "told"
    stand_in.install(monkeypatch, tmp_path, DIES_OF_INT8.format(told=str(told)))

    with pytest.raises(ModelError, match=r"^the conversion process died of SIGSEGV, with "):
        run(tmp_path, config=ModelConfig(quantization="int8"))

    assert told.read_text().splitlines() == ["int8"]


def test_what_tensorflow_has_to_run_is_an_entry_without_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "(out / 'engine').mkdir(); (out / 'engine' / 'saved_model.pb').write_text('graph')\n"
    stand_in.install(monkeypatch, tmp_path, body + "say(error='TFLite has no Lookup', engine=dict(reason='r'))")
    source = stand_in.model(tmp_path)
    converter = stand_in.converter(tmp_path)

    entry = converter.convert(source, PLAIN, {}, silent)

    assert entry.report == {"error": "TFLite has no Lookup", "engine": {"reason": "r"}}
    assert (entry.folder / "engine" / "saved_model.pb").read_text() == "graph"
    assert not entry.model.exists()
    assert not converter.has(source), "it takes long to start"
    with pytest.raises(ModelError, match=r"^TFLite has no Lookup$"):
        converter.convert(source, ModelConfig(engine="litert"), {}, silent)


# .tflite files


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "found an empty file"),
        (b"none", "found 4 bytes that begin with 'none'"),
        (b"\x89HDF\r\n\x1a\n" * 100, "found 800 bytes that begin with "),
    ],
)
def test_a_file_that_is_plainly_no_tflite_model_is_refused_by_its_first_bytes(
    tmp_path: Path, content: bytes, found: str
) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(content)

    with pytest.raises(ModelError) as caught:
        stand_in.converter(tmp_path).keep(Source("m", 1, Kind.TFLITE, path, None))

    assert caught.value.message.startswith(f"m.tflite is no TFLite model: {found}")
    assert caught.value.message.endswith("expected 'TFL3' at the fifth byte")


def test_a_file_of_2_gib_is_refused_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(tflite.affine())
    os.truncate(path, 1 << 31)
    monkeypatch.setattr(convert, "content_key", lambda *_: pytest.fail("it was read"))

    with pytest.raises(
        ModelError, match=r"^m\.tflite has 2,147,483,648 bytes: a TFLite model has less than 2,147,483,"
    ):
        stand_in.converter(tmp_path).keep(Source("m", 1, Kind.TFLITE, path, None))

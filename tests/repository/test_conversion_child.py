"""What the conversion child refuses before it imports TensorFlow, and what it is held to. test_loader.py has the rest.

The files are made by hand here, as hostile ones are.
"""

import ast
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import child_checks
from app.errors import ModelError
from app.repository import convert
from app.repository.layout import SUFFIXES, Kind, Source
from app.repository.model_config import ModelConfig
from child_conversion import Clock
from child_reasons import Refused, explain
from tests.repository import stand_in

CHILD = str(convert._CHILD)
CODE = "print('this would run')"
IMPORT = "    import tensorflow as tf\n"


def refusal(path: Path) -> str:
    """Why a file is refused."""
    with pytest.raises(Refused) as caught:
        child_checks.check_file(path, SUFFIXES[path.suffix].value)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 250
    return message


def layer(name: str, module: str = "keras.layers", **config: Any) -> dict[str, Any]:
    return {"module": module, "class_name": name, "config": {"name": "it", **config}, "registered_name": None}


def sequential(*layers: dict[str, Any]) -> dict[str, Any]:
    first = layer("InputLayer", batch_shape=[None, 2], dtype="float32")
    return layer("Sequential", "keras", layers=[first, *layers])


def weights(**datasets: Any) -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file.create_group("layers")
        for name, value in datasets.items():
            file[name] = value
    return stream.getvalue()


def keras_file(
    path: Path, config: Any, *, members: dict[str, bytes] | None = None, compression: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config if isinstance(config, str | bytes) else json.dumps(config))
        for name, content in {"model.weights.h5": weights(), **(members or {})}.items():
            archive.writestr(name, content)
    return path


def h5_file(path: Path, config: Any, **links: Any) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = config if isinstance(config, str) else json.dumps(config)
        group = file.create_group("model_weights")
        for name, link in links.items():
            group[name] = link
    return path


# Files that are something else


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "m.keras",
            b"Dear diary",
            "m.keras is not a .keras file: expected a zip archive, found 10 bytes that begin with 'Dear dia'",
        ),
        ("m.keras", b"", "m.keras is not a .keras file: expected a zip archive, found an empty file"),
        ("m.h5", b"", "m.h5 is not an HDF5 file: found an empty file"),
        ("m.h5", b"Dear diary", "m.h5 is not an HDF5 file: found 10 bytes that begin with 'Dear dia'"),
        ("m.hdf5", b"PK\x03\x04", r"m.hdf5 is not an HDF5 file: found 4 bytes that begin with 'PK\x03\x04'"),
    ],
)
def test_a_file_of_another_format_is_refused_by_its_first_bytes(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    assert refusal(path) == reason


def test_a_zip_archive_that_is_no_keras_file_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("holiday.jpg", b"...")

    assert refusal(tmp_path / "m.keras") == ("m.keras is not a .keras file: it is a zip archive without config.json")


def test_a_keras_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "m.keras", sequential())
    os.truncate(path, path.stat().st_size // 2)

    assert refusal(path) == ("m.keras is cut short: it begins as a .keras file, a zip archive, and has no end")


def test_a_keras_file_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "m.keras", sequential(), members={"assets/a": b"0123456789"})
    path.write_bytes(path.read_bytes().replace(b"0123456789", b"0123456788"))

    assert refusal(path) == "m.keras is damaged: its member assets/a has another checksum"


def test_a_keras_file_whose_weights_are_no_hdf5_is_refused(tmp_path: Path) -> None:
    path = keras_file(tmp_path / "m.keras", sequential(), members={"model.weights.h5": b"none"})

    assert refusal(path).startswith("m.keras is damaged: its archive cannot be read (")


@pytest.mark.parametrize("config", ["", "{", b"\xff\xfe\xff", "[" * 200_000])
def test_a_config_that_is_not_json_is_refused(tmp_path: Path, config: str | bytes) -> None:
    path = keras_file(tmp_path / "m.keras", config)

    assert refusal(path) == "the file is damaged: config.json is not JSON"


def test_an_hdf5_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    path = h5_file(tmp_path / "m.h5", sequential(), data=np.zeros(10_000))
    os.truncate(path, path.stat().st_size // 2)

    assert refusal(path).startswith("m.h5 is damaged or cut short: ")


def test_an_hdf5_file_with_weights_only_is_refused_with_the_cure(tmp_path: Path) -> None:
    (tmp_path / "m.h5").write_bytes(weights(kernel=np.zeros(3)))

    assert refusal(tmp_path / "m.h5") == ("m.h5 holds weights without a model: save the whole model with model.save()")


def test_an_hdf5_file_whose_model_is_not_json_is_refused(tmp_path: Path) -> None:
    assert refusal(h5_file(tmp_path / "m.h5", "{")) == "the file is damaged: its model_config is not JSON"


# Files that do harm


@pytest.mark.parametrize("name", ["/etc/litepool", "../outside", "assets/../../outside", r"..\outside", "C:/outside"])
def test_an_archive_that_unpacks_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    path = keras_file(tmp_path / "m.keras", sequential(), members={name: b"harm"})

    assert refusal(path) == f"m.keras is not loaded: its member {name!r} would be unpacked elsewhere"


@pytest.mark.parametrize("pieces", [1, 4])
def test_an_archive_that_unpacks_to_far_more_is_refused_be_it_in_one_piece_or_in_several(
    tmp_path: Path, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_checks, "_UNPACKED_FREE", 1 << 20)
    members = {f"assets/{piece}": bytes(2**21 // pieces) for piece in range(pieces)}
    path = keras_file(tmp_path / "m.keras", sequential(), members=members, compression=zipfile.ZIP_DEFLATED)

    assert refusal(path) == "m.keras is not loaded: it would unpack to 2 MiB, as no Keras file does"


HOSTILE_LAYERS = {
    "Lambda": "arbitrary Python code",
    "TFSMLayer": "a SavedModel elsewhere on the disk",
    "TorchModuleWrapper": "a pickled PyTorch module",
    "JaxLayer": "arbitrary Python code",
}


@pytest.mark.parametrize("format_", ["keras", "h5"])
@pytest.mark.parametrize("name", HOSTILE_LAYERS)
def test_a_layer_that_is_code_is_refused_in_either_format_wherever_it_hides(
    tmp_path: Path, name: str, format_: str
) -> None:
    hidden = sequential(layer("TimeDistributed", layer=layer(name, "somewhere.else")))
    path = tmp_path / f"m.{format_}"
    make = keras_file if format_ == "keras" else h5_file
    make(path, hidden)

    assert refusal(path) == (
        f"it holds a {name} layer, which is {HOSTILE_LAYERS[name]} and is not loaded: "
        "replace it by one of Keras' own layers"
    )


def test_a_lambda_is_refused_where_an_activation_should_be(tmp_path: Path) -> None:
    code = {"class_name": "__lambda__", "config": {"value": CODE}}
    path = keras_file(tmp_path / "m.keras", sequential(layer("Dense", units=1, activation=code)))

    assert refusal(path).startswith("it holds a lambda layer, which is arbitrary Python code")


@pytest.mark.parametrize(
    ("module", "function"),
    [
        ("keras.utils", "get_file"),
        ("keras.config", "enable_unsafe_deserialization"),
        ("keras.saving", "load_model"),
        ("keras.src.utils.file_utils", "get_file"),
        ("keras.opsutils", "f"),
    ],
)
def test_a_function_that_is_none_for_a_layer_is_refused(tmp_path: Path, module: str, function: str) -> None:
    named = {"module": module, "class_name": "function", "config": function, "registered_name": function}
    path = keras_file(tmp_path / "m.keras", sequential(layer("Dense", units=1, activation=named)))

    assert refusal(path) == f"it names the function {module}.{function}, which is none for a layer"


@pytest.mark.parametrize("module", ["builtins", "keras.activations", "keras.src.ops.nn", "keras.ops", "mine"])
def test_a_function_that_a_layer_may_have_is_left_to_keras(module: str) -> None:
    named = {"module": module, "class_name": "function", "config": "relu", "registered_name": "relu"}

    child_checks.check_config(json.dumps(sequential(layer("Dense", activation=named))), "config.json")


LINKS = {
    "a link to another file": h5py.ExternalLink("/etc/passwd", "/"),
    "a soft link": h5py.SoftLink("/elsewhere"),
}


@pytest.mark.parametrize("link", LINKS.values(), ids=LINKS)
def test_links_in_hdf5_are_refused_in_either_format(tmp_path: Path, link: Any) -> None:
    expected = "it is not loaded: its HDF5 member 'model_weights/kernel' refers to data elsewhere"

    assert refusal(h5_file(tmp_path / "m.h5", sequential(), kernel=link)) == expected

    stored = weights(**{"model_weights/kernel": link})
    path = keras_file(tmp_path / "m.keras", sequential(), members={"model.weights.h5": stored})
    assert refusal(path) == expected


def test_hdf5_data_kept_in_another_file_is_refused(tmp_path: Path) -> None:
    path = h5_file(tmp_path / "m.h5", sequential())
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(8))
    with h5py.File(path, "a") as file:
        file.create_dataset("model_weights/kernel", (2,), "float32", external=[(str(secret), 0, 8)])

    assert "'model_weights/kernel' refers to data elsewhere" in refusal(path)


def test_hdf5_data_gathered_from_other_files_is_refused(tmp_path: Path) -> None:
    path = h5_file(tmp_path / "m.h5", sequential())
    (tmp_path / "other.h5").write_bytes(weights(kernel=np.ones(2)))
    layout = h5py.VirtualLayout((2,), "float32")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "kernel", (2,))
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("model_weights/kernel", layout)

    assert "'model_weights/kernel' refers to data elsewhere" in refusal(path)


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_the_child_refuses_before_it_begins_with_tensorflow(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "installed_tensorflow", lambda: "2.21.0")
    path = tmp_path / f"m{suffix}"
    _ = (
        keras_file(path, sequential(layer("Lambda")))
        if suffix == ".keras"
        else h5_file(path, sequential(layer("Lambda")))
    )
    stages: list[str] = []

    with pytest.raises(ModelError, match=r"^it holds a Lambda layer, "):
        stand_in.converter(tmp_path).convert(
            Source("m", 1, SUFFIXES[suffix], path, None), ModelConfig(), {}, stages.append
        )

    assert stages == []


# What holds whatever gets past that

SANDBOX = f"""
import os, sys
sys.path.insert(0, {CHILD!r})
from child_sandbox import READS, WRITES, confine, fence, readable
"""


def run(code: str, *arguments: str | Path) -> list[str]:
    """Run code with the child's sandbox, in a process of its own; the lines that it prints."""
    found = subprocess.run(
        [sys.executable, "-I", "-c", SANDBOX + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout.split()


TRY = """
def tried(run, *arguments):
    try:
        run(*arguments)
    except OSError as error:
        print(type(error).__name__)
    else:
        print("done")
"""


def landlock() -> bool:
    return run("import ctypes\nprint(sys.platform == 'linux' and ctypes.CDLL(None).syscall(444, None, 0, 1) >= 4)") == [
        "True"
    ]


@pytest.fixture
def fence() -> str:
    if not landlock():
        pytest.skip("this kernel has no Landlock that knows of TCP")
    return TRY


def test_behind_the_fence_files_are_written_in_the_work_folder_only(tmp_path: Path, fence: str) -> None:
    work, outside = tmp_path / "work", tmp_path / "outside"
    for folder in (work / "a", work / "b", outside):
        folder.mkdir(parents=True)
    (outside / "file").write_text("as it was")
    code = """
from pathlib import Path
work, outside = map(Path, sys.argv[1:])
fence(WRITES, [work, "/dev/null"])
tried((work / "a" / "file").write_text, "x")
tried((work / "a" / "file").rename, work / "b" / "file")
tried(Path("/dev/null").write_text, "x")
for run, *arguments in (
    ((outside / "new").write_text, "x"),
    ((outside / "file").write_text, "x"),
    ((outside / "file").unlink,),
    ((outside / "folder").mkdir,),
    ((outside / "link").symlink_to, "file"),
    ((work / "b" / "file").rename, outside / "moved"),
    (os.truncate, outside / "file", 0),
):
    tried(run, *arguments)
"""

    assert run(fence + code, work, outside) == ["done"] * 3 + ["PermissionError"] * 7
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "as it was"


def test_behind_the_second_fence_only_the_model_and_python_are_read(tmp_path: Path, fence: str) -> None:
    model, work, secret = tmp_path / "model", tmp_path / "work", tmp_path / "secret"
    for folder in (model, work):
        folder.mkdir()
    for file in (model / "weights", secret, tmp_path / "linked"):
        file.write_text("")
    (model / "link").symlink_to(tmp_path / "linked")
    code = """
from pathlib import Path
model, work, secret = map(Path, sys.argv[1:])
fence(WRITES, [work])
fence(READS, readable(model, work))
tried((work / "file").write_text, "x")
tried((work / "file").rename, work / "moved")
tried((model / "weights").read_text)
tried((model / "link").read_text)
tried(Path("/proc/self/status").read_text)
import wave
tried(secret.read_text)
tried(Path("/etc/passwd").read_text)
tried(Path(f"/proc/{os.getppid()}/environ").read_bytes)
tried(os.listdir, secret.parent)
"""

    assert run(fence + code, model, work, secret) == ["done"] * 5 + ["PermissionError"] * 4


def test_links_that_lead_in_a_circle_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "here").symlink_to(".")

    code = "from pathlib import Path\nprint(len(readable(Path(sys.argv[1]), Path('out'))) > 3)"

    assert run(code, tmp_path) == ["True"]


def test_behind_the_fence_nothing_is_connected_to(tmp_path: Path, fence: str) -> None:
    code = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    fence(WRITES, [])
    tried(socket.create_connection, server.getsockname())
    tried(socket.create_server, ("127.0.0.1", 0))
"""

    assert run(fence + code) == ["PermissionError", "PermissionError"]


def test_without_landlock_the_fence_is_none_and_no_fault() -> None:
    code = """
import ctypes
class Old:
    def syscall(self, *arguments): return -1
ctypes.CDLL = lambda name: Old()
fence(WRITES, ["/"])
print("on")
"""

    assert run(code) == ["on"]


def test_the_child_may_use_so_much_memory_and_no_more() -> None:
    code = """
confine(1 << 28, os.getppid())
kept = bytearray(1 << 26)
try:
    bytearray(1 << 28)
except MemoryError:
    print("refused")
import resource
print(resource.getrlimit(resource.RLIMIT_CORE)[0], resource.getrlimit(resource.RLIMIT_FSIZE)[0] == 1 << 28)
print(os.getpriority(os.PRIO_PROCESS, 0) > 0)
"""

    assert run(code) == ["refused", "0", "True", "True"]


def test_a_child_whose_server_is_gone_ends() -> None:
    program = SANDBOX + "confine(1 << 40, 1 << 30)\nprint('it went on')"

    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert (found.returncode, found.stdout) == (1, "")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells a child of its parent's death on Linux only")
def test_a_child_ends_with_its_server(tmp_path: Path) -> None:
    # The pipe ends when the last process that holds it does; the child would hold it for ever.
    child = SANDBOX + "import signal\nconfine(1 << 40, os.getppid())\nprint('ready', flush=True)\nsignal.pause()"
    server = f"import subprocess, sys, signal\nsubprocess.Popen([sys.executable, '-c', {child!r}])\nsignal.pause()"
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.kill()

        assert process.stdout.read() == ""


def told_by_the_child(folder: Path) -> str:
    """Why it refuses a sound file."""
    source = Source("m", 1, Kind.KERAS, keras_file(folder / "m.keras", sequential()), None)
    with pytest.raises(ModelError) as caught:
        stand_in.converter(folder).convert(source, ModelConfig(), {}, lambda stage: None)
    return caught.value.message


def test_what_a_model_prints_is_no_message_to_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = "    import os; os.system('echo loud'); print('loud')\n"
    stand_in.alter(monkeypatch, tmp_path, {IMPORT: noise + "    raise Refused('it got here')\n"})

    assert told_by_the_child(tmp_path) == "it got here"


def test_the_limits_are_set_before_tensorflow_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look = f"""
    import resource, sys
    limit, imported = resource.getrlimit(resource.RLIMIT_FSIZE)[0], "tensorflow" in sys.modules
    try:
        Path({str(tmp_path / "outside")!r}).touch()
    except PermissionError:
        pass
    raise Refused(f"{{limit}} {{imported}}")
"""
    stand_in.alter(monkeypatch, tmp_path, {IMPORT: look})

    assert told_by_the_child(tmp_path) == f"{1 << 32} False"
    assert (tmp_path / "outside").exists() is not landlock()


def test_the_child_finds_its_own_folder_and_what_every_python_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in.alter(monkeypatch, tmp_path, {IMPORT: "    import sys; raise Refused(repr(sys.path))\n"})
    plain = [sys.executable, "-I", "-c", "import sys; print(sys.path)"]
    found = subprocess.run(plain, capture_output=True, text=True, timeout=60, check=True).stdout

    assert ast.literal_eval(told_by_the_child(tmp_path)) == [str(convert._CHILD), *ast.literal_eval(found)]


@pytest.mark.parametrize("name", ["app", "repository", "convert", "layout", "errors"])
def test_where_litepool_is_not_installed_the_child_finds_nothing_of_it(name: str) -> None:
    # Without site-packages, which hold Litepool where it is installed, and TensorFlow, which is not needed yet.
    code = f"{SANDBOX}import child_conversion\nprint('it is there')\nimport {name}"
    command = [sys.executable, "-I", "-S", "-c", code]

    found = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert found.stdout == "it is there\n"
    assert found.stderr.endswith(f"ModuleNotFoundError: No module named {name!r}\n")


# Messages


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            TypeError("Could not locate class 'Mine'. Make sure custom classes and\nfunctions"),
            "it needs the custom object 'Mine', whose code the file does not hold: use Keras' own layers, "
            "or export it as a SavedModel",
        ),
        (
            ValueError("Unknown layer: 'Ours>Mine'. Please ensure you are using"),
            "it needs the custom object 'Ours>Mine', whose code the file does not hold: use Keras' own layers, "
            "or export it as a SavedModel",
        ),
        (
            ValueError("Unknown layer: 'TFOpLambda'. Please ensure you are using"),
            "it holds TensorFlow operations between its layers (TFOpLambda), which Keras 3 does not load: export it as "
            "a SavedModel with the Keras that made it",
        ),
        (
            RuntimeError("Op type not registered 'Mine' in binary running on a-host. Make sure the Op and Kernel"),
            "it needs the operation 'Mine', which is none of TensorFlow's own: use these",
        ),
        (
            RuntimeError("Graph execution error:\n\nDetected at node a defined at\nCould not find variable w_1. This"),
            "it has variables without values, for its checkpoint does not hold them: save the model with its weights",
        ),
        (
            TypeError(
                "in layer\n\nException encountered: Could not interpret activation function identifier: <lambda>"
            ),
            "it has a layer whose activation is a lambda, whose code the file does not hold: use one of Keras' own, or "
            "export it as a SavedModel with the code that made it",
        ),
        (
            RuntimeError("'tf.TensorListReserve' op is\nTF Select ops: TensorListReserve, StringLower"),
            "it needs operations that TFLite does not have, StringLower: use other layers",
        ),
        (
            RuntimeError("error: 'tf.StringLower' op is neither a custom op nor a flex op\n'tf.StringLower' op is ne"),
            "it needs operations that TFLite does not have, StringLower: use other layers",
        ),
        (
            RuntimeError(
                "Graph execution error:\n\nDetected at node a\n<stack traces unavailable>\nIncompatible shapes"
            ),
            "RuntimeError: Incompatible shapes",
        ),
        (Refused("in its own words"), "in its own words"),
        (
            ValueError("Requested a vocabulary file. This carries a risk; passing `safe_mode=False` to"),
            "Keras does not load it in safe mode: Requested a vocabulary file",
        ),
        (
            RuntimeError("Some ops\nTF Select ops: RegexReplace, StringLower\nDetails: \nCustom ops: Erfinv\nDetails"),
            "it needs operations that TFLite does not have, RegexReplace, StringLower, Erfinv: use other layers",
        ),
        (
            RuntimeError("<unknown>:0: error: loc(\"x\"): 'tf.Mystery' op is odd\n<unknown>:0: note: called from"),
            "RuntimeError: error: 'tf.Mystery' op is odd",
        ),
        (
            ValueError(
                "Exception encountered when calling Functional.call().\n\n"
                "\x1b[1m'out a' is not a valid scope name.\x1b[0m\n\nArguments received by Functional.call():\n"
            ),
            "ValueError: 'out a' is not a valid scope name.",
        ),
        (
            ValueError("Exception encountered when calling Functional.call()."),
            "ValueError: Exception encountered when calling Functional.call().",
        ),
        (RuntimeError("\n\n  one line \n another"), "RuntimeError: one line"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_long_texts_become_one_sentence(error: Exception, sentence: str) -> None:
    assert explain(error) == sentence


def test_a_text_that_nobody_foresaw_is_short() -> None:
    assert len(explain(RuntimeError("x" * 10_000))) < 400


def test_a_clock_tells_stages_as_they_begin_and_keeps_their_seconds_by_their_first_word() -> None:
    told: list[str] = []
    clock = Clock(told.append)

    for name in ("importing TensorFlow", "loading m.keras", ""):
        clock.next(name)

    assert told == ["importing TensorFlow", "loading m.keras"]
    assert list(clock.seconds) == ["importing", "loading"]
    assert all(took >= 0 for took in clock.seconds.values())

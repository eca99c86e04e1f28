"""Converts one model to TFLite, in a process of its own: the only place that imports TensorFlow.

Run by path, not imported: it uses nothing of ours, so that a model's code finds nothing of ours either. It reads one
JSON request from standard input and writes JSON lines to standard output: `{"stage": "..."}` as it goes on, then
`{"report": {...}}` or `{"error": "..."}`. In the folder `out` it leaves `model.tflite` and `parity.npz`: seeded inputs
with TensorFlow's own answers, arrays `in_0`, ..., `out_0`, ..., each `[rows, *record]`, in the order of the names in
the report.
"""

# ruff: noqa: PLC0415  TensorFlow is imported after the limits are set, and after the first stage has been told.

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import resource
import signal
import struct
import sys
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

SEED = 20240229
ROWS = 16
_FREE_SIZES = (16, 8, 32, 64, 96, 128, 160, 224, 256, 1)
"""Sizes tried for free inner dimensions, all alike, until TensorFlow runs the model."""

_TIMING_SECONDS = 1.0
_TIMING_RUNS = 25

_UNSAFE_OPS = re.compile(
    r"ReadFile|WriteFile|TextFile|MatchingFiles|PyFunc|Dataset|Iterator|Reader|Summary|Debug|Rpc|Configur|^Print|^Dump"
    r"|^ImmutableConst$|^RecordInput$"
)
"""Graph ops that reach beyond tensors. Loading a SavedModel can run them."""

_CODE_LAYERS = {
    "Lambda": "arbitrary Python code",
    "__lambda__": "arbitrary Python code",
    "JaxLayer": "arbitrary Python code",
    "FlaxLayer": "arbitrary Python code",
    "TorchModuleWrapper": "a pickled PyTorch module",
    "TFSMLayer": "a SavedModel elsewhere on the disk",
}
"""Keras classes that load what is no part of the file, or run it. Keras' safe mode refuses them too, but in HDF5 files
only lately, and its texts advise to turn it off."""

_FUNCTIONS = re.compile(r"keras\.(src\.)?(activations|constraints|initializers|ops|regularizers)\b.*")
"""Modules of Keras whose functions a layer may be given; in others are some that download, and some that write."""

_UNPACKED_FREE, _UNPACKED_TIMES = 64 << 20, 20
"""A .keras file may unpack to so many bytes, or to so many times its size; Keras itself does not compress."""

# Rights of Landlock, as linux/landlock.h numbers them. A rule for a file, not a folder, may give those of files only.
_READS = 1 << 2 | 1 << 3
_WRITES = 1 << 1 | 0x7FF << 4
_MOVE = 1 << 13
_OF_FILES = 1 << 1 | 1 << 2 | 1 << 14
_SYSTEM = ("/dev/null", "/dev/urandom", "/etc/ld.so.cache", "/lib", "/lib64", "/usr")
_SYSTEM_FACTS = ("/proc/cpuinfo", "/proc/meminfo", "/proc/self", "/proc/stat", "/sys/devices/system")


class Refused(Exception):
    """The model is not converted, for a reason that a person can act on."""


def main() -> None:
    # The channel is the real standard output; what libraries print there goes to standard error.
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def say(message: dict[str, Any]) -> None:
        channel.write(json.dumps(message) + "\n")

    request = json.load(sys.stdin)
    confine(request["memory"], request["parent"])
    fence(_WRITES, [request["out"], "/dev/null"])
    try:
        say({"report": convert(request, lambda stage: say({"stage": stage}))})
    except Refused as error:
        say({"error": str(error)})
    except Exception as error:
        too_little = f"the conversion needs more than the {request['memory'] >> 20} MiB that it may use"
        say({"error": too_little if is_out_of_memory(error) else explain(error)})
    channel.flush()
    # TensorFlow's threads need no orderly end, and waiting for it costs a second.
    os._exit(0)


def confine(memory: int, parent: int) -> None:
    """Bound what a hostile model can use, and end with the server."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    os.nice(10)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (memory, memory))


def fence(rights: int, allowed: Iterable[str | Path]) -> None:
    """Give up `rights` on files for good, but for those under `allowed`, and all TCP, and signals to other processes.

    For what safe mode and the checks below do not hold. Landlock is in Linux from 5.19 on as it is needed here; where
    there is none, nothing happens.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    create, add_rule, restrict = 444, 445, 446
    version = libc.syscall(create, None, 0, 1)
    if version < 2:
        return
    # Every ruleset forbids moves between folders that does not speak of them.
    rights = (rights | _MOVE) & (1 << 12 + min(version, 3)) - 1
    ruleset = struct.pack("QQQ", rights, 0b11, 0b10)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = libc.syscall(create, ruleset, len(ruleset), 0)
    for path in allowed:
        with contextlib.suppress(OSError):
            place = os.open(path, os.O_PATH)
            given = rights if Path(path).is_dir() else rights & _OF_FILES
            libc.syscall(add_rule, rules, 1, struct.pack("=Qi", given, place), 0)
            os.close(place)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which only root may
    libc.syscall(restrict, rules, 0)
    os.close(rules)


def readable(source: Path, out: Path) -> list[str | Path]:
    """What the conversion has to read: the model, and the Python that runs. A model's files may be links."""
    links = [path.resolve() for path in source.rglob("*") if path.is_symlink()] if source.is_dir() else []
    return [source, *links, out, sys.prefix, sys.base_prefix, *sys.path, *_SYSTEM, *_SYSTEM_FACTS]


def convert(request: dict[str, Any], stage: Callable[[str], None]) -> dict[str, Any]:
    """Load, convert, and compute reference answers."""
    source, out = Path(request["source"]), Path(request["out"])
    check_file(source, request["kind"])
    clock = Clock(stage)
    clock.next("importing TensorFlow")
    import tensorflow as tf

    # After the import, which finds its libraries wherever the system keeps them, and before TensorFlow has threads.
    fence(_READS, readable(source, out))
    clock.next(f"loading {source.name}")
    model: Model = SavedModel(tf, source) if request["kind"] == "saved_model" else KerasModel(tf, source, out)
    check_inputs(model)
    clock.next("converting")
    content = to_tflite(tf, model, request["quantization"])
    (out / "model.tflite").write_bytes(content)
    clock.next("computing reference answers")
    timings = write_parity(model, out / "parity.npz")
    clock.next("")
    return {
        "tensorflow": tf.__version__,
        "keras": model.keras_version,
        "bytes": len(content),
        "inputs": list(model.inputs),
        "outputs": model.outputs,
        "seconds": clock.seconds,
        "timings_us": timings,
    }


class Clock:
    """Tells each stage as it begins, and keeps the seconds that each took."""

    def __init__(self, stage: Callable[[str], None]) -> None:
        self.seconds: dict[str, float] = {}
        self._stage = stage
        self._current = ""
        self._since = time.monotonic()

    def next(self, name: str) -> None:
        now = time.monotonic()
        if self._current:
            self.seconds[self._current.split()[0]] = round(now - self._since, 2)
        self._current, self._since = name, now
        if name:
            self._stage(name)


def check_file(source: Path, kind: str) -> None:
    """Refuse what is no model, or is not safe to load, before TensorFlow, whose errors are long, sees it."""
    if kind == "keras":
        check_config(keras_config(source), "config.json")
    elif kind == "h5":
        check_config(h5_config(source), "its model_config")


def keras_config(source: Path) -> str | bytes:
    """The text of config.json in a .keras file whose archive is sound."""
    if not zipfile.is_zipfile(source):
        if head(source).startswith("PK"):
            raise Refused(f"{source.name} is cut short: it begins as a .keras file, a zip archive, and has no end")
        raise Refused(f"{source.name} is not a .keras file: expected a zip archive, found {show_head(source)}")
    try:
        with zipfile.ZipFile(source) as archive:
            check_members(archive.infolist(), source)
            if "config.json" not in archive.namelist():
                raise Refused(f"{source.name} is not a .keras file: it is a zip archive without config.json")
            if broken := archive.testzip():
                raise Refused(f"{source.name} is damaged: its member {broken} has another checksum")
            if "model.weights.h5" in archive.namelist():
                with archive.open("model.weights.h5") as weights:
                    h5_attributes(weights)
            return archive.read("config.json")
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        raise Refused(f"{source.name} is damaged: its archive cannot be read ({error})") from error


def check_members(members: list[zipfile.ZipInfo], source: Path) -> None:
    """Refuse an archive that would unpack beside its folder, or to more than it can rightly hold."""
    for member in members:
        parts = member.filename.replace("\\", "/").split("/")
        if ".." in parts or not parts[0] or ":" in parts[0]:
            raise Refused(f"{source.name} is not loaded: its member {member.filename!r} would be unpacked elsewhere")
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(_UNPACKED_FREE, _UNPACKED_TIMES * source.stat().st_size):
        raise Refused(f"{source.name} is not loaded: it would unpack to {unpacked >> 20} MiB, as no Keras file does")


def h5_config(source: Path) -> str | bytes:
    """The text of the model in an HDF5 file that refers to no other file."""
    if head(source) != "\x89HDF\r\n\x1a\n":
        raise Refused(f"{source.name} is not an HDF5 file: found {show_head(source)}")
    try:
        config = h5_attributes(source).get("model_config")
    except OSError as error:
        raise Refused(f"{source.name} is damaged or cut short: {error}") from error
    if not isinstance(config, str | bytes):
        raise Refused(f"{source.name} holds weights without a model: save the whole model with model.save()")
    return config


def h5_attributes(file: Any) -> dict[str, Any]:
    """The attributes of an HDF5 file without links, which may lead to other files, and without data kept in such."""
    import h5py

    def link(name: str, found: Any) -> str | None:
        return None if isinstance(found, h5py.HardLink) else name

    def data(name: str, found: Any) -> str | None:
        return name if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual) else None

    with h5py.File(file, "r") as opened:
        if elsewhere := opened.visititems_links(link) or opened.visititems(data):
            raise Refused(f"it is not loaded: its HDF5 member {elsewhere!r} refers to data elsewhere")
        return dict(opened.attrs)


def check_config(text: str | bytes, where: str) -> None:
    """Refuse a Keras model that needs code, or files, beyond its own."""
    try:
        waiting = [json.loads(text)]
    except (ValueError, RecursionError) as error:
        raise Refused(f"the file is damaged: {where} is not JSON") from error
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            name, module = str(item.get("class_name")), str(item.get("module"))
            if name in _CODE_LAYERS:
                raise Refused(
                    f"it holds a {name.strip('_')} layer, which is {_CODE_LAYERS[name]} and is not loaded: "
                    "replace it by one of Keras' own layers"
                )
            if name == "function" and module.startswith("keras") and not _FUNCTIONS.fullmatch(module):
                raise Refused(f"it names the function {module}.{item.get('config')}, which is none for a layer")


def head(source: Path) -> str:
    """The first bytes of a file."""
    with source.open("rb") as stream:
        return stream.read(8).decode("latin-1")


def show_head(source: Path) -> str:
    """The same for a message."""
    size = source.stat().st_size
    return f"{size} bytes that begin with {head(source)!r}" if size else "an empty file"


class Model:
    """A model as TensorFlow runs it: named tensors in, named tensors out."""

    keras_version: str | None = None
    saved: Path
    signature: str
    inputs: dict[str, Any]
    """`tf.TensorSpec` by name."""
    outputs: list[str]
    output_shapes: list[list[int | None]]

    def call(self, tensors: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def predict(self, tensors: dict[str, Any]) -> object:
        """`model.predict()`, for the timing only; where there is none, the call."""
        return self.call(tensors)

    @property
    def batching(self) -> str:
        """`free`, `one` or `none`: as Litepool's signatures class the leading dimensions."""
        shapes = [spec.shape.as_list() for spec in self.inputs.values()] + self.output_shapes
        leading = {shape[0] if shape else 0 for shape in shapes}
        return "free" if leading == {None} else "one" if leading == {1} else "none"


class SavedModel(Model):
    """A SavedModel folder; its `serving_default` signature, or the only one."""

    def __init__(self, tf: Any, source: Path) -> None:
        self._tf = tf
        self.saved = source
        check_ops(source)
        self._loaded = tf.saved_model.load(str(source))
        names = [name for name in self._loaded.signatures if not name.startswith("__")]
        if "serving_default" not in names and len(names) != 1:
            found = f"the signatures {', '.join(sorted(names))}" if names else "no signature"
            raise Refused(f"the SavedModel has {found}: export it with one that is named serving_default")
        self.signature = "serving_default" if "serving_default" in names else names[0]
        self._function = self._loaded.signatures[self.signature]
        self.inputs = dict(self._function.structured_input_signature[1])
        self.outputs = list(self._function.structured_outputs)
        self.output_shapes = [shape_of(self._function.structured_outputs[name].shape) for name in self.outputs]

    def call(self, tensors: dict[str, Any]) -> dict[str, Any]:
        result = self._function(**{name: self._tf.constant(value) for name, value in tensors.items()})
        return {name: result[name].numpy() for name in self.outputs}


def shape_of(shape: Any) -> list[int | None]:
    return shape.as_list() if shape.rank is not None else []


def check_ops(source: Path) -> None:
    """Refuse a SavedModel whose graph would touch files or run Python."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    binary = source / "saved_model.pb"
    if not binary.is_file():
        raise Refused("the SavedModel is in text form (saved_model.pbtxt): save it in binary form")
    try:
        proto.ParseFromString(binary.read_bytes())
    except Exception as error:
        raise Refused("saved_model.pb is damaged: it is no SavedModel protocol buffer") from error
    for meta in proto.meta_graphs:
        graph = meta.graph_def
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        unsafe = sorted({node.op for node in nodes if _UNSAFE_OPS.search(node.op)})
        if unsafe:
            raise Refused(
                f"the SavedModel is not loaded: its graph holds {', '.join(unsafe)}, which reach beyond tensors"
            )


class KerasModel(Model):
    """A `.keras` or `.h5` file, loaded in safe mode and exported with the names of its input and output layers."""

    def __init__(self, tf: Any, source: Path, out: Path) -> None:
        import keras

        self._tf = tf
        self._keras = keras
        self.keras_version = keras.__version__
        # By a name of ours, because Keras wants the suffix in small letters, and may unpack a large file beside it.
        link = out / ("model.keras" if zipfile.is_zipfile(source) else "model.h5")
        link.symlink_to(source)
        self._model = keras.saving.load_model(link, compile=False, safe_mode=True)
        exported = out / "export"
        self._model.export(str(exported), verbose=False)
        loaded = tf.saved_model.load(str(exported))
        function = loaded.signatures["serving_default"]
        self.signature = "serving_default"
        self.inputs = dict(function.structured_input_signature[1])
        self._names = self._output_names(list(function.structured_outputs))
        self.outputs = list(self._names.values())
        self.output_shapes = [shape_of(function.structured_outputs[name].shape) for name in self._names]
        self.saved = exported
        if any(old != new for old, new in self._names.items()):
            self.saved = out / "renamed"
            self._save_renamed(loaded, function)

    def _output_names(self, exported: list[str]) -> dict[str, str]:
        """`{name in Keras' export: layer's name}`; Keras calls the outputs of a list `output_0`, `output_1`, ..."""
        numbered = [f"output_{index}" for index in range(len(exported))]
        if sorted(exported) != sorted(numbered):
            return {name: name for name in exported}
        is_sequential = isinstance(self._model, self._keras.Sequential)
        layers = [self._model.layers[-1].name] if is_sequential else list(self._model.output_names)
        return dict(zip(numbered, layers if len(set(layers)) == len(numbered) else numbered, strict=True))

    def _save_renamed(self, loaded: Any, function: Any) -> None:
        def serve(**tensors: Any) -> dict[str, Any]:
            result = function(**tensors)
            return {new: result[old] for old, new in self._names.items()}

        concrete = self._tf.function(serve).get_concrete_function(**self.inputs)
        self._tf.saved_model.save(loaded, str(self.saved), signatures={self.signature: concrete})

    def _arguments(self, tensors: dict[str, Any]) -> Any:
        """The inputs in the model's own structure, whose keys need not be the inputs' names."""
        if isinstance(self._model, self._keras.Sequential):
            return next(iter(tensors.values()))
        return self._keras.tree.map_structure(lambda tensor: tensors[tensor.name], self._model.input)

    def call(self, tensors: dict[str, Any]) -> dict[str, Any]:
        result = self._model(self._arguments(tensors), training=False)
        if isinstance(result, dict):
            return {name: self._array(result[name]) for name in self.outputs}
        results = list(result) if isinstance(result, (list, tuple)) else [result]
        return {name: self._array(value) for name, value in zip(self.outputs, results, strict=True)}

    def predict(self, tensors: dict[str, Any]) -> object:
        return self._model.predict(self._arguments(tensors), verbose=0)

    def _array(self, tensor: Any) -> Any:
        return self._tf.convert_to_tensor(tensor).numpy()


def check_inputs(model: Model) -> None:
    """Refuse what could be converted and not be served."""
    import numpy as np

    for name, spec in model.inputs.items():
        if np.dtype(spec.dtype.as_numpy_dtype).kind not in "fiub":
            raise Refused(f"input {name!r} holds {spec.dtype.name} values, which are not served: feed it numbers")


def to_tflite(tf: Any, model: Model, quantization: str) -> bytes:
    """Convert the saved model's one signature."""
    converter = tf.lite.TFLiteConverter.from_saved_model(str(model.saved), signature_keys=[model.signature])
    if quantization in ("dynamic", "float16"):
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if quantization == "float16":
        converter.target_spec.supported_types = [tf.float16]
    content: bytes = converter.convert()
    return content


def write_parity(model: Model, path: Path) -> dict[str, float]:
    """Store seeded inputs with the model's answers; returns median times of one record in microseconds."""
    import numpy as np

    records, answers = reference(model)
    arrays = {f"in_{index}": records[name] for index, name in enumerate(model.inputs)}
    arrays |= {f"out_{index}": answers[name] for index, name in enumerate(model.outputs)}
    np.savez(path, allow_pickle=False, **arrays)
    one = {name: tensor_of(model, value, 1) for name, value in records.items()}
    timings = {"call": timed(lambda: model.call(one))}
    if model.keras_version is not None:
        timings["predict"] = timed(lambda: model.predict(one))
    return timings


def reference(model: Model) -> tuple[dict[str, Any], dict[str, Any]]:
    """Seeded records, and TensorFlow's answers to them: `{name: [rows, *record]}`."""
    free = any(None in shape_of(spec.shape)[model.batching != "none" :] for spec in model.inputs.values())
    failure: Exception | None = None
    for size in _FREE_SIZES if free else (1,):
        records = {name: sample(model, spec, size, index) for index, (name, spec) in enumerate(model.inputs.items())}
        try:
            return records, answers_to(model, records)
        except Exception as error:
            failure = failure or error
    raise Refused(f"TensorFlow itself does not run the model: {explain(failure)}")


def sample(model: Model, spec: Any, size: int, index: int) -> Any:
    """Seeded records for one input: noise, with a record of zeros and one of ones for floats; 0 and 1 for integers."""
    import numpy as np

    dtype = np.dtype(spec.dtype.as_numpy_dtype)
    shape = shape_of(spec.shape)[model.batching != "none" :]
    generator = np.random.default_rng([SEED, index])
    full = (ROWS, *(size if part is None else part for part in shape))
    if dtype.kind == "f":
        values = generator.standard_normal(full).astype(dtype)
        values[0], values[1] = 0, 1
        return values
    return generator.integers(0, 2, full).astype(dtype)


def tensor_of(model: Model, records: Any, rows: int) -> Any:
    """The first `rows` records as the model takes them."""
    return records[0] if model.batching == "none" else records[:rows]


def answers_to(model: Model, records: dict[str, Any]) -> dict[str, Any]:
    import numpy as np

    if model.batching == "free":
        return model.call(records)
    singles = [
        model.call(
            {name: value[row] if model.batching == "none" else value[row : row + 1] for name, value in records.items()}
        )
        for row in range(ROWS)
    ]
    join = np.stack if model.batching == "none" else np.concatenate
    return {name: join([single[name] for single in singles]) for name in model.outputs}


def timed(run: Callable[[], object]) -> float:
    """Median microseconds of a call, after two that do not count."""
    run()
    run()
    took: list[float] = []
    while len(took) < _TIMING_RUNS and sum(took) < _TIMING_SECONDS:
        start = time.perf_counter()
        run()
        took.append(time.perf_counter() - start)
    return round(median(took) * 1e6, 1)


def is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "failed to map segment" in str(error)


def explain(error: BaseException | None) -> str:
    """One sentence for an exception of TensorFlow's or Keras', whose texts run to pages."""
    text = str(error)
    if found := re.search(r"(?:Could not locate (?:class|function)|Unknown layer:) '([^']+)'", text):
        name = found[1]
        return f"it needs the custom object {name!r}, whose code the file does not hold: use Keras' own layers"
    if "safe_mode=False" in text:
        return f"Keras does not load it in safe mode: {text.partition('. ')[0]}"
    if "not a valid parameter name" in text or "non-unique argument names" in text:
        return "Keras cannot export the names of its inputs: use letters, digits and '_' in them"
    if "TensorListReserve" in text:
        return (
            "it holds a recurrent layer over a free batch, which TFLite does not have: build that layer with "
            "unroll=True, for a fixed number of steps"
        )
    if missing := re.findall(r"(?:Custom|TF Select) ops: ([\w, ]+)", text):
        return f"it needs operations that TFLite does not have, {', '.join(map(str.strip, missing))}: use other layers"
    line = next((line.strip() for line in text.splitlines() if line.strip()), "")
    line = re.sub(r"<unknown>:0: |loc\(.*\): |\{\{.*?\}\} ", "", line)
    return f"{type(error).__name__}: {line[:300]}" if line else type(error).__name__


if __name__ == "__main__":
    main()

"""The calls that all four clients of tritonclient make in the same words: a program imports them and adds its own."""

from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
from tritonclient.http.auth import BasicAuth
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from calls import call, equal, refused

X = np.array([1, 2, 5], np.float32)
Y = np.array([2.5, 3.0, 4.5], np.float32)

INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]

TYPES = {
    "bool": np.array([[True, False]]),
    **{name: np.array([[np.iinfo(name).min, np.iinfo(name).max]], name) for name in INTEGERS},
    **{name: np.array([[0.1, -np.inf]], name) for name in ("float16", "float32", "float64")},
    "string": np.array([[b"owl", b""]], np.object_),
}
"""A record of each type that `types` takes, with what is easily lost on the way."""


class Triton:
    """A client of tritonclient. What it gives to be awaited is awaited, so that these calls need not know.

    Args:
        client: an `InferenceServerClient`.
        address: where it is connected to.
        api: the package of its `InferInput` and `InferRequestedOutput`.
        wait: gives what an awaitable comes to.
        as_json: arguments by which what is no tensor comes as JSON.
    """

    def __init__(
        self,
        client: Any,
        address: str,
        api: ModuleType,
        wait: Callable[[Awaitable[Any]], Any] | None = None,
        as_json: dict[str, bool] | None = None,
    ) -> None:
        self.client = client
        self.address = address
        self.api = api
        self.wait = wait
        self.as_json = as_json or {}

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.client, name)

        def called(*args: Any, **options: Any) -> Any:
            result = method(*args, **options)
            return self.wait(result) if self.wait and isinstance(result, Awaitable) else result

        return called

    def tensor(self, name: str, array: np.ndarray[Any, Any], **how: Any) -> Any:
        """An input with its data."""
        tensor = self.api.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array, **how)
        return tensor

    def output(self, name: str, **how: Any) -> Any:
        return self.api.InferRequestedOutput(name, **how)

    def numpy(self, model: str, inputs: dict[str, np.ndarray[Any, Any]], output: str, **options: Any) -> Any:
        """One output of an inference."""
        tensors = [self.tensor(name, array) for name, array in inputs.items()]
        return self.infer(model, tensors, **options).as_numpy(output)


# Health, metadata, configuration


@call
def finds_the_server_live_and_ready(triton: Triton) -> None:
    equal(triton.is_server_live(), True)
    equal(triton.is_server_ready(), True)


@call
def finds_models_ready(triton: Triton) -> None:
    equal(triton.is_model_ready("m"), True)
    equal(triton.is_model_ready("m", "1"), True)
    equal(triton.is_model_ready("half", model_version="2"), True)
    equal(triton.is_model_ready("m", "7"), False)
    equal(triton.is_model_ready("nowhere"), False)


@call
def reads_the_servers_metadata(triton: Triton) -> None:
    metadata = triton.get_server_metadata(**triton.as_json)
    equal(metadata["name"], "litepool")
    assert metadata["version"], metadata
    for extension in ("binary_tensor_data", "classification", "model_repository", "model_configuration", "statistics"):
        assert extension in metadata["extensions"], metadata
    for extension in ("system_shared_memory", "cuda_shared_memory", "trace", "logging"):
        assert extension not in metadata["extensions"], metadata


@call
def reads_a_models_metadata(triton: Triton) -> None:
    metadata = triton.get_model_metadata("m", **triton.as_json)
    equal((metadata["name"], metadata["versions"]), ("m", ["1"]))
    assert metadata["platform"], metadata
    for tensors, name in ((metadata["inputs"], "x"), (metadata["outputs"], "y")):
        equal([(tensor["name"], tensor["datatype"]) for tensor in tensors], [(name, "FP32")])
        equal([int(size) for size in tensors[0]["shape"]], [-1])


@call
def reads_the_metadata_of_a_version(triton: Triton) -> None:
    metadata = triton.get_model_metadata("half", model_version="1", **triton.as_json)
    equal(metadata["name"], "half")
    assert "1" in metadata["versions"], metadata


@call
def reads_the_metadata_of_several_tensors_and_types(triton: Triton) -> None:
    metadata = triton.get_model_metadata("two", **triton.as_json)
    equal({tensor["name"] for tensor in metadata["inputs"]}, {"left", "right"})
    shapes = {tensor["name"]: [int(size) for size in tensor["shape"]] for tensor in metadata["outputs"]}
    equal(shapes, {"total": [-1, 1], "difference": [-1, 3]})
    datatypes = {
        tensor["name"]: tensor["datatype"] for tensor in triton.get_model_metadata("types", **triton.as_json)["inputs"]
    }
    equal(datatypes, {name: np_to_triton_dtype(array.dtype) for name, array in TYPES.items()})


@call
def is_told_that_a_model_or_version_does_not_exist(triton: Triton) -> None:
    for arguments in (("nowhere",), ("m", "7")):
        with refused(InferenceServerException, arguments[-1]):
            triton.get_model_metadata(*arguments)
        with refused(InferenceServerException, arguments[-1]):
            triton.get_model_config(*arguments)
        with refused(InferenceServerException, arguments[-1]):
            triton.infer(arguments[0], [triton.tensor("x", X)], *arguments[1:])


@call
def reads_a_models_configuration(triton: Triton) -> None:
    for arguments in (("classes",), ("classes", "1")):
        config = triton.get_model_config(*arguments, **triton.as_json)
        config = config.get("config", config)
        equal(config["name"], "classes")
        assert int(config["max_batch_size"]) > 0, config
        (given,), (answered,) = config["input"], config["output"]
        equal((given["name"], given["data_type"]), ("x", "TYPE_FP32"))
        equal([int(size) for size in given["dims"]], [4])
        equal((answered["name"], answered["data_type"]), ("y", "TYPE_FP32"))


# The repository and statistics


@call
def reads_the_index_of_the_repository(triton: Triton) -> None:
    index = triton.get_model_repository_index(**triton.as_json)
    models = index["models"] if triton.as_json else index
    ready = {(model["name"], model.get("version")) for model in models if model.get("state") == "READY"}
    assert {("m", "1"), ("half", "1"), ("half", "2"), ("two", "1")} <= ready, models


@call
def unloads_and_loads_a_model(triton: Triton) -> None:
    record = {"x": np.ones((1, 4), np.float32)}
    equal(triton.numpy("spare", record, "y"), [[3, 3, 3, 3]])
    triton.unload_model("spare")
    equal(triton.is_model_ready("spare"), False)
    with refused(InferenceServerException, "spare"):
        triton.numpy("spare", record, "y")
    triton.load_model("spare")
    equal(triton.is_model_ready("spare"), True)
    equal(triton.numpy("spare", record, "y"), [[3, 3, 3, 3]])
    triton.unload_model("spare", unload_dependents=True)
    triton.load_model("spare")


@call
def is_told_that_a_model_to_load_or_unload_does_not_exist(triton: Triton) -> None:
    with refused(InferenceServerException, "nowhere"):
        triton.load_model("nowhere")
    with refused(InferenceServerException, "nowhere"):
        triton.unload_model("nowhere")


@call
def is_told_that_models_are_loaded_from_the_folder_alone(triton: Triton) -> None:
    with refused(InferenceServerException, "config"):
        triton.load_model("spare", config='{"max_batch_size": 4}')
    with refused(InferenceServerException, "not supported"):
        triton.load_model("spare", config="{}", files={"file:1/model.tflite": b"TFL3"})
    equal(triton.is_model_ready("spare"), True)


@call
def reads_statistics(triton: Triton) -> None:
    def statistics(*arguments: str) -> Any:
        (found,) = triton.get_inference_statistics(*arguments, **triton.as_json)["model_stats"]
        equal((found["name"], found["version"]), ("half", "2"))
        return found

    before = statistics("half", "2")
    for rows in (1, 3):
        triton.numpy("half", {"x": np.ones(rows, np.float32)}, "y", model_version="2")
    after = statistics("half", "2")

    def count(found: Any, *keys: str) -> int:
        for key in keys:
            found = found.get(key, {})
        return int(found or 0)

    equal(count(after, "inference_count") - count(before, "inference_count"), 4)
    assert 1 <= count(after, "execution_count") - count(before, "execution_count") <= 2, (before, after)
    batches = [
        {int(one["batch_size"]): count(one, "compute_infer", "count") for one in found.get("batch_stats", [])}
        for found in (before, after)
    ]
    equal([batches[1].get(rows, 0) - batches[0].get(rows, 0) for rows in (1, 2, 3)], [1, 0, 1])
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        keys = ("inference_stats", part)
        equal(count(after, *keys, "count") - count(before, *keys, "count"), 2)
    assert count(after, "inference_stats", "compute_infer", "ns") > count(
        before, "inference_stats", "compute_infer", "ns"
    )
    assert count(after, "last_inference") > 1.6e12, after
    with refused(InferenceServerException, "nowhere"):
        triton.get_inference_statistics("nowhere")


@call
def reads_the_statistics_of_all_models(triton: Triton) -> None:
    found = triton.get_inference_statistics(**triton.as_json)["model_stats"]
    assert {("m", "1"), ("half", "1"), ("half", "2")} <= {(each["name"], each["version"]) for each in found}, found


# Inference


@call
def infers(triton: Triton) -> None:
    result = triton.infer("m", [triton.tensor("x", X)])
    equal(result.as_numpy("y"), Y)
    equal(result.as_numpy("z"), None)


@call
def infers_with_a_version(triton: Triton) -> None:
    for version, offset in (("", 3), ("1", 2), ("2", 3)):
        result = triton.infer("half", [triton.tensor("x", X)], model_version=version)
        equal(result.as_numpy("y"), X / 2 + np.float32(offset))


@call
def infers_a_batch_of_megabytes(triton: Triton) -> None:
    x = np.random.default_rng(0).normal(size=1_000_000).astype(np.float32)
    equal(triton.numpy("m", {"x": x}, "y"), x / 2 + 2)


@call
def infers_with_several_inputs_in_any_order(triton: Triton) -> None:
    left, right = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones((2, 3), np.float32)
    for inputs in ({"left": left, "right": right}, {"right": right, "left": left}):
        result = triton.infer("two", [triton.tensor(name, array) for name, array in inputs.items()])
        equal(result.as_numpy("total"), np.array([[6], [15]], np.float32))
        equal(result.as_numpy("difference"), left - right)


@call
def infers_the_outputs_asked_for(triton: Triton) -> None:
    ones = np.ones((1, 3), np.float32)
    inputs = [triton.tensor("left", ones), triton.tensor("right", ones)]
    result = triton.infer("two", inputs, outputs=[triton.output("difference")])
    equal(result.as_numpy("difference"), ones - ones)
    equal(result.as_numpy("total"), None)
    with refused(InferenceServerException, "nothing"):
        triton.infer("two", inputs, outputs=[triton.output("nothing")])


@call
def infers_every_type(triton: Triton) -> None:
    result = triton.infer("types", [triton.tensor(name, array) for name, array in TYPES.items()])
    for name, array in TYPES.items():
        equal(result.as_numpy(f"same_{name}"), array)


@call
def infers_strings_of_any_bytes(triton: Triton) -> None:
    strings = np.array([[b"", b"\xff\x00\xfe"], ["grüß".encode(), b"x" * 70_000]], np.object_)
    result = triton.infer("words", [triton.tensor("x", strings)])
    equal(result.as_numpy("y"), strings)
    equal(result.as_numpy("y_bytes"), strings)
    unicode = np.array([["grüß", "gott"]], np.object_)
    equal(triton.numpy("words", {"x": unicode}, "y"), [["grüß".encode(), b"gott"]])
    equal(triton.numpy("words", {"x": np.array([[b"ab", b"c"]])}, "y"), [[b"ab", b"c"]])


@call
def is_told_that_no_model_takes_bfloat16(triton: Triton) -> None:
    with refused(InferenceServerException, "x", "BF16", "FP32"):
        triton.infer("m", [triton.tensor("x", X.astype(ml_dtypes.bfloat16))])


@call
def infers_numbers_that_are_not_finite(triton: Triton) -> None:
    found = triton.numpy("m", {"x": np.array([np.nan, np.inf, -np.inf], np.float32)}, "y")
    equal(np.isnan(found), [True, False, False])
    equal(found[1:], [np.inf, -np.inf])


@call
def infers_an_output_without_elements(triton: Triton) -> None:
    found = triton.numpy("places", {"x": np.zeros(4, bool)}, "y")
    equal(found, np.empty((0, 1), np.int64))
    equal(triton.numpy("places", {"x": np.array([False, True, False, True])}, "y"), np.array([[1], [3]], np.int64))


@call
def is_told_that_there_are_no_records(triton: Triton) -> None:
    with refused(InferenceServerException, "x", "[0]"):
        triton.numpy("m", {"x": np.empty(0, np.float32)}, "y")


@call
def infers_the_best_classes(triton: Triton) -> None:
    scores = np.array([[1, 4, 2, 3], [9, 6, 7, 8]], np.float32)
    result = triton.infer("classes", [triton.tensor("x", scores)], outputs=[triton.output("y", class_count=2)])
    found = result.as_numpy("y")
    best = [[["1", "dog"], ["3", "yak"]], [["0", "cat"], ["3", "yak"]]]
    equal([[text.decode().split(":")[1:] for text in row] for row in found], best)
    equal([[float(text.decode().split(":")[0]) for text in row] for row in found], [[9, 7], [19, 17]])
    result = triton.infer("classes", [triton.tensor("x", scores)], outputs=[triton.output("y", class_count=99)])
    equal(result.as_numpy("y").shape, (2, 4))


@call
def infers_classes_without_names(triton: Triton) -> None:
    arrays = {"left": np.array([[1, 5, 3]], np.float32), "right": np.zeros((1, 3), np.float32)}
    inputs = [triton.tensor(name, array) for name, array in arrays.items()]
    outputs = [triton.output("difference", class_count=1), triton.output("total")]
    result = triton.infer("two", inputs, outputs=outputs)
    ((text,),) = result.as_numpy("difference").tolist()
    score, *rest = text.decode().split(":")
    equal((float(score), rest), (5, ["1"]))
    equal(result.as_numpy("total"), [[9]])


@call
def has_its_request_id_again(triton: Triton) -> None:
    for identity in ("42", "ü" * 40):
        response = triton.infer("m", [triton.tensor("x", X)], request_id=identity).get_response(**triton.as_json)
        equal((response["id"], response["model_name"], response["model_version"]), (identity, "m", "1"))


@call
def may_send_parameters_a_priority_and_headers(triton: Triton) -> None:
    options = {"parameters": {"note": "of mine", "count": 3, "really": True}, "priority": 1}
    equal(triton.numpy("m", {"x": X}, "y", headers={"x-of-mine": "1"}, **options), Y)


@call
def may_carry_credentials(triton: Triton) -> None:
    triton.register_plugin(BasicAuth("somebody", "secret"))
    assert isinstance(triton.plugin(), BasicAuth)
    equal(triton.numpy("m", {"x": X}, "y"), Y)
    triton.unregister_plugin()
    equal(triton.numpy("m", {"x": X}, "y"), Y)


@call
def keeps_a_sequence(triton: Triton) -> None:
    one = {"x": np.ones((1, 4), np.float32)}

    def step(name: int | str, **place: bool) -> float:
        return float(triton.numpy("sum", one, "y", sequence_id=name, **place)[0, 0])

    pairs: tuple[tuple[int | str, int | str], ...] = ((11, 12), ("eleven", "twelve"))
    for names in pairs:
        for name in names:
            equal(step(name, sequence_start=True), 1)
        equal([step(names[0]), step(names[1]), step(names[0])], [2, 2, 3])
        for name, total in zip(names, (4, 3), strict=True):
            equal(step(name, sequence_end=True), total)
        with refused(InferenceServerException, str(names[0])):
            step(names[0])


@call
def is_told_what_is_wrong_with_a_request(triton: Triton) -> None:
    ones = np.ones((1, 3), np.float32)
    for words, model, inputs in (
        (("x", "FP64", "FP32"), "m", {"x": X.astype(np.float64)}),
        (("x", "[-1, 4]", "[1, 3]"), "classes", {"x": ones}),
        (("x", "[-1, 4]", "[4]"), "classes", {"x": np.ones(4, np.float32)}),
        (("right",), "two", {"left": ones}),
        (("left",), "two", {"left": ones, "right": np.ones((2, 3), np.float32)}),
        (("up",), "m", {"x": X, "up": X}),
        (("z",), "m", {"z": X}),
        (("x",), "m", {}),
    ):
        with refused(InferenceServerException, *words):
            triton.infer(model, [triton.tensor(name, array) for name, array in inputs.items()])


@call
def is_answered_in_the_time_it_gives(triton: Triton) -> None:
    equal(triton.numpy("slow", {"x": np.ones((1, 1), np.float32)}, "y", timeout=60_000_000).shape, (1, 1))


# What the server does not have


@call
def is_told_that_there_is_no_shared_memory(triton: Triton) -> None:
    for kind, arguments in (("system", ("region", "/key", 64)), ("cuda", ("region", b"aGFuZGxl", 0, 64))):
        with refused(InferenceServerException, "shared memory"):
            getattr(triton, f"get_{kind}_shared_memory_status")()
        with refused(InferenceServerException, "shared memory"):
            getattr(triton, f"register_{kind}_shared_memory")(*arguments)
        with refused(InferenceServerException, "shared memory"):
            getattr(triton, f"unregister_{kind}_shared_memory")()
    tensor, output = triton.tensor("x", X), triton.output("y")
    tensor.set_shared_memory("region", 12)
    with refused(InferenceServerException, "shared memory"):
        triton.infer("m", [tensor])
    output.set_shared_memory("region", 12)
    with refused(InferenceServerException, "shared memory"):
        triton.infer("m", [triton.tensor("x", X)], outputs=[output])


@call
def is_told_that_there_are_no_settings_of_traces_and_logs(triton: Triton) -> None:
    with refused(InferenceServerException, "trac"):
        triton.get_trace_settings()
    with refused(InferenceServerException, "trac"):
        triton.update_trace_settings("m", {"trace_level": ["TIMESTAMPS"]})
    with refused(InferenceServerException, "log"):
        triton.get_log_settings()
    with refused(InferenceServerException, "log"):
        triton.update_log_settings({"log_verbose_level": 1})

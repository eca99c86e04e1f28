"""TensorFlow Serving's `PredictionService`, but for the calls that are hot."""

from collections.abc import Sequence
from typing import Any

import grpc

from app.errors import InvalidArgument, printable
from app.protocols.call import SHOWN, Wire
from app.repository.manager import Manager, Target
from app.server import serving_info
from app.server.rpc.calls import Left, Unary, awaited
from app.server.rpc.hot import Hot, Sought, sought_by_spec
from app.server.rpc.messages import Method, filled, new
from app.server.rpc.status import Refused

_SIGNATURE_DEF = "signature_def"
_DEFAULT = "serving_default"

_MOST_TASKS = 256
"""More than any model has signatures; they are looked at on the event loop."""

_TASKS = {
    "tensorflow/serving/classify": (Wire.GRPC_CLASSIFY, "Classification", "classification_result"),
    "tensorflow/serving/regress": (Wire.GRPC_REGRESS, "Regression", "regression_result"),
}
"""What a task of `MultiInference` may be: its call, what its messages are called, and the field of its result."""


def sought(request: Any) -> Sought:
    """What a request with a `model_spec` is for.

    Raises:
        InvalidArgument: it does not say.
    """
    if not request.HasField("model_spec"):
        raise InvalidArgument("Missing ModelSpec: the request has no `model_spec`, whose `name` is the model's")
    return sought_by_spec(memoryview(request.model_spec.SerializeToString()))


def target_of(request: Any) -> Target:
    """The same without the signature."""
    return sought(request).target


async def metadata(manager: Manager, request: Any) -> Any:
    """`GetModelMetadata`: the signatures, which are all the metadata that there is."""
    if not request.metadata_field:
        raise InvalidArgument("GetModelMetadataRequest must specify at least one metadata_field: signature_def")
    for field in request.metadata_field:
        if field != _SIGNATURE_DEF:
            raise InvalidArgument(f"Metadata field {field[:SHOWN]} is not supported: expected {_SIGNATURE_DEF}")
    said = serving_info.model_metadata(manager, target_of(request))
    signatures = filled("tensorflow.serving.SignatureDefMap", said["metadata"][_SIGNATURE_DEF])
    response = filled("tensorflow.serving.GetModelMetadataResponse", {"model_spec": said["model_spec"]})
    # By hand: the Any of protobuf's JSON looks for the type in the default pool.
    packed = response.metadata[_SIGNATURE_DEF]
    packed.type_url = f"type.googleapis.com/{signatures.DESCRIPTOR.full_name}"
    packed.value = signatures.SerializeToString()
    return response


def multi_inference(method: Method, hot: dict[Wire, Hot]) -> Unary:
    """`MultiInference`: several classifications and regressions of the same examples."""
    calls = {wire: awaited(hot[wire]) for wire, _, _ in _TASKS.values()}

    async def call(message: bytes, left: Left) -> bytes:
        request = method.read(message)
        _check_tasks(request.tasks)
        response = new("tensorflow.serving.MultiInferenceResponse")
        for task in request.tasks:
            wire, kind, field = _TASKS[task.method_name]
            own = new(f"tensorflow.serving.{kind}Request", model_spec=task.model_spec, input=request.input)
            answer = new(f"tensorflow.serving.{kind}Response")
            answer.ParseFromString(await calls[wire](own.SerializeToString(), left))
            response.results.add(model_spec=answer.model_spec, **{field: answer.result})
        return method.write(response)

    return call


def _check_tasks(tasks: Sequence[Any]) -> None:
    """Refuse what cannot be done at once.

    Raises:
        InvalidArgument
        Refused: a task is of a kind that there is not.
    """
    if not tasks:
        raise InvalidArgument("the request has no `tasks`: expected one for each signature to be run")
    if len(tasks) > _MOST_TASKS:
        raise InvalidArgument(f"the request has {len(tasks)} tasks: expected {_MOST_TASKS} at most")
    first, _ = sought(tasks[0])
    signatures = set()
    for index, task in enumerate(tasks):
        if task.method_name not in _TASKS:
            raise Refused(
                grpc.StatusCode.UNIMPLEMENTED,
                f"Unsupported signature method_name: {printable(task.method_name[:SHOWN])} of tasks[{index}]: expected "
                + " or ".join(_TASKS),
            )
        target, signature = sought(task)
        signature = signature or _DEFAULT
        if target.model != first.model:
            raise InvalidArgument(
                "All ModelSpecs in a MultiInferenceRequest must access the same model name: found "
                f"{first.model!r} and {target.model!r}"
            )
        if signature in signatures:
            raise InvalidArgument(f"Duplicate evaluation of signature: {signature[:SHOWN]}")
        signatures.add(signature)

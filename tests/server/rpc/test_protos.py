"""The messages and services as their originals have them."""

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import make_protos
import pytest
from google.protobuf.descriptor_pool import Default

from app.server.rpc.messages import POOL, SERVICES, methods, new
from tests.alone import run_alone

SERVING_MODULES = ("prediction_service_pb2", "model_service_pb2", "inference_pb2")


def test_the_compiled_form_is_of_what_lies_beside_it() -> None:
    assert make_protos.OF_SOURCES.read_text().strip() == make_protos.hash_of_sources(), "python scripts/make_protos.py"


def test_nothing_of_ours_is_in_the_pool_that_all_share() -> None:
    for name in SERVICES:
        with pytest.raises(KeyError):
            Default().FindServiceByName(f"{name}X")
    command = (
        "from google.protobuf.descriptor_pool import Default\nimport app.server.rpc.messages\n"
        "for name in ('tensorflow.TensorProto', 'inference.ModelInferRequest'):\n"
        "    try: Default().FindMessageTypeByName(name)\n    except KeyError: continue\n    raise SystemExit(name)"
    )
    subprocess.run([sys.executable, "-c", command], check=True)


def test_every_method_has_its_path() -> None:
    paths = [method.path for service in SERVICES for method in methods(service)]

    assert "/tensorflow.serving.PredictionService/Predict" in paths
    assert "/inference.GRPCInferenceService/ModelStreamInfer" in paths
    assert len(paths) == len(set(paths)) == 27


def differences(ours: Any, theirs: Any) -> list[str]:
    """Where a message of ours has what the original has not, or has otherwise; recursively."""
    found = []
    for field in ours.fields:
        other = theirs.fields_by_name.get(field.name)
        if other is None:
            found.append(f"{field.full_name} is unknown")
            continue
        found += [
            f"{field.full_name}: {name} is not {getattr(other, name)}"
            for name in ("number", "type", "is_repeated")
            if getattr(field, name) != getattr(other, name)
        ]
        if (field.containing_oneof and field.containing_oneof.name) != (
            other.containing_oneof and other.containing_oneof.name
        ):
            found.append(f"{field.full_name} is in another oneof")
        for kind in ("message_type", "enum_type"):
            mine, its = getattr(field, kind), getattr(other, kind)
            if (mine and mine.full_name) != (its and its.full_name):
                found.append(f"{field.full_name} is of another type than {its.full_name}")
    for enum in ours.enum_types:
        found += enum_differences(enum, theirs.enum_types_by_name[enum.name])
    for nested in ours.nested_types:
        found += differences(nested, theirs.nested_types_by_name[nested.name])
    return found


def enum_differences(ours: Any, theirs: Any) -> list[str]:
    known = {value.name: value.number for value in theirs.values}
    return [f"{ours.full_name}.{value.name}" for value in ours.values if known.get(value.name) != value.number]


def test_a_difference_is_found() -> None:
    ours = POOL.FindMessageTypeByName("tensorflow.serving.ModelConfig")

    assert differences(ours, ours) == []
    ours, theirs = (
        POOL.FindMessageTypeByName(f"tensorflow.serving.Regression{kind}") for kind in ("Request", "Response")
    )
    assert differences(ours, theirs) == [
        "tensorflow.serving.RegressionRequest.model_spec: number is not 2",
        "tensorflow.serving.RegressionRequest.input is unknown",
    ]


@pytest.mark.slow
def test_the_messages_agree_with_tensorflow_servings_own() -> None:
    run_alone(compare_with_tensorflow_serving)


def compare_with_tensorflow_serving() -> None:
    for name in SERVING_MODULES:
        importlib.import_module(f"tensorflow_serving.apis.{name}")
    pool: Any = Default()
    compared = 0
    for file in ("tensorflow.proto", "serving.proto", "error_codes.proto"):
        own = POOL.FindFileByName(file)
        for message in own.message_types_by_name.values():
            assert differences(message, pool.FindMessageTypeByName(message.full_name)) == []
            compared += 1
        for enum in own.enum_types_by_name.values():
            assert enum_differences(enum, pool.FindEnumTypeByName(enum.full_name)) == []
    assert compared > 40
    for service in SERVICES[:2]:
        theirs = pool.FindServiceByName(service)
        for method in methods(service):
            other = theirs.methods_by_name[method.name]
            assert method.descriptor.input_type.full_name == other.input_type.full_name
            assert method.descriptor.output_type.full_name == other.output_type.full_name


def test_an_answer_takes_no_name_for_another() -> None:
    spec = new("tensorflow.serving.ModelSpec", name="a name")

    assert spec.name == "a name"


def test_the_sources_are_where_the_script_looks() -> None:
    assert {path.name for path in Path(make_protos.PROTOS).glob("*.proto")} == {
        "error_codes.proto",
        "inference.proto",
        "serving.proto",
        "tensorflow.proto",
    }

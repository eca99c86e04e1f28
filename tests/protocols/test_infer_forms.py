"""Each form of a request of Open Inference comes to the same call, and each form of an answer holds the same bits."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from app.protocols.call import Call
from app.protocols.infer_grpc import GrpcInfer
from app.protocols.infer_rest import InferRest
from app.tensors import Array, Batching
from tests.examples import many
from tests.protocols.golden_infer import GOLDEN, Golden, read_grpc, read_rest
from tests.signatures import one_in


def rest_calls(golden: Golden, codec: InferRest) -> dict[str, Call]:
    body, length = golden.binary_form()
    found = {"binary": codec.reading(length).decode(body)}
    if golden.has_json:
        found["flat"] = codec.decode(golden.json_form())
        found["nested"] = codec.decode(golden.json_form(nested=True))
        found["JSON with its length"] = codec.reading(str(len(golden.json_form()))).decode(golden.json_form())
    return found


def grpc_calls(golden: Golden, codec: GrpcInfer) -> dict[str, Call]:
    found = {"raw": codec.decode(golden.grpc_form())}
    if golden.has_json:
        found["typed"] = codec.decode(golden.grpc_form(typed=True))
    return found


def expect(golden: Golden, call: Call, form: str) -> None:
    whole = golden.signature.batching is Batching.NONE
    assert call.rows == (1 if whole else len(next(iter(golden.inputs.values())))), form
    for spec, array in zip(golden.signature.inputs, call.inputs, strict=True):
        wanted = golden.inputs[spec.name]
        assert array.dtype == wanted.dtype, form
        assert array.shape == ((1, *wanted.shape) if whole else wanted.shape), form
        assert array.tolist() == ([wanted.tolist()] if whole else wanted.tolist()), form
        if wanted.dtype.kind != "O":
            assert array.tobytes() == wanted.tobytes(), form


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_every_form_of_a_request_comes_to_the_same_call(golden: Golden) -> None:
    rest, grpc = InferRest(golden.identity, golden.signature), GrpcInfer(golden.identity, golden.signature)
    # Twice, since a form that was seen before takes a shorter road.
    for _ in range(2):
        for form, call in (*rest_calls(golden, rest).items(), *grpc_calls(golden, grpc).items()):
            expect(golden, call, form)
            assert call.timeout_ns == 1000 * golden.parameters.get("timeout", 0)


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_every_form_of_an_answer_holds_the_same(golden: Golden) -> None:
    rest, grpc = InferRest(golden.identity, golden.signature), GrpcInfer(golden.identity, golden.signature)
    for _ in range(2):
        answers = [read_rest(rest.encode(call, golden.outputs)) for call in rest_calls(golden, rest).values()]
        answers += [read_grpc(grpc.encode(call, golden.outputs)) for call in grpc_calls(golden, grpc).values()]
        for said, tensors in answers:
            named = {"id": golden.id} if golden.id else {}
            assert said == {**named, "model_name": "m", "model_version": "1"}
            assert list(tensors.items()) == list(golden.answer.items())


@given(
    hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 6)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
@settings(max_examples=many(60))
def test_any_float32_is_the_same_bits_in_every_form_both_ways(array: npt.NDArray[np.float32]) -> None:
    golden = Golden("any", one_in(shape=(-1, -1)), {"x": array}, [array], {}, id="1")
    rest, grpc = InferRest(golden.identity, golden.signature), GrpcInfer(golden.identity, golden.signature)
    for _ in range(2):
        for call in (*rest_calls(golden, rest).values(), *grpc_calls(golden, grpc).values()):
            assert call.inputs[0].tobytes() == array.tobytes()
        for form in (golden.json_form(), golden.json_form(binary_answer=True)):
            assert read_rest(rest.encode(rest.decode(form), [array]))[1]["y"][2] == array.tobytes()
        assert read_grpc(grpc.encode(grpc.decode(golden.grpc_form()), [array]))[1]["y"][2] == array.tobytes()


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.text(max_size=20))
@settings(max_examples=many(60))
def test_any_bytes_and_any_id_are_the_same_in_every_binary_form(values: list[bytes], identity: str) -> None:
    array: Array = np.empty((len(values), 1), object)
    array[:, 0] = values
    golden = Golden("any", one_in("string", (-1, 1)), {"x": array}, [array], {}, id=identity)
    rest, grpc = InferRest(golden.identity, golden.signature), GrpcInfer(golden.identity, golden.signature)
    body, length = golden.binary_form()
    for _ in range(2):
        call = rest.reading(length).decode(body)
        assert call.inputs[0].tolist() == array.tolist()
        said, tensors = read_rest(rest.encode(call, [array]))
        assert said.get("id", "") == identity
        assert (said, tensors) == read_grpc(grpc.encode(grpc.decode(golden.grpc_form()), [array]))

"""What must be so of a codec whatever body it is given."""

import json
from collections.abc import Sequence

import numpy as np

from app.errors import Code, InvalidArgument, LitepoolError, UnsupportedFormat
from app.protocols.call import Answer, Call, Codec, Form
from app.protocols.infer_answer import HEADER
from app.tensors import STRING, Array, Batching, Signature, fits
from tests.fuzz.models import SIGNATURES, arrays
from tests.fuzz.oracles import ORACLES, Tensors
from tests.fuzz.targets import Case, codec_of, decoder_of, new_codec

LONGEST_MESSAGE = 1000

_CLIENTS_FAULTS = {Code.INVALID_ARGUMENT, Code.UNSUPPORTED_FORMAT, Code.TOO_LARGE}


def check(target: str, case: Case) -> tuple[Array, ...] | None:
    """Have a body read and answered, or refused.

    Returns:
        The arrays that were read; None if it was refused.
    """
    codec = codec_of(target, case.signature)
    assert codec is not None
    read = _decoded(codec, case)
    if isinstance(read, LitepoolError):
        check_refusal(read)
        return None
    signature = SIGNATURES[case.signature]
    check_call(read, signature, case.body.data)
    if target in ORACLES:
        check_values(read, signature, ORACLES[target](signature, case.body))
    check_answer(codec, read, signature)
    return read.inputs


def check_alike(target: str, case: Case) -> None:
    """What a codec has read before changes nothing: neither others, nor this very body."""
    seen, new = codec_of(target, case.signature), new_codec(target, case.signature)
    assert seen is not None
    assert new is not None
    expected = _told(_decoded(new, case))
    assert _told(_decoded(seen, case)) == expected
    assert _told(_decoded(seen, case)) == expected


def _decoded(codec: Codec, case: Case) -> Call | LitepoolError:
    try:
        return decoder_of(codec, case.body.length).decode(case.body.data)
    except LitepoolError as error:
        return error


def _told(read: Call | LitepoolError) -> object:
    if isinstance(read, LitepoolError):
        return type(read), read.message
    arrays = [(array.shape, array.tolist() if array.dtype == STRING else array.tobytes()) for array in read.inputs]
    return arrays, read.rows, read.form, read.timeout_ns, read.place


def check_refusal(error: LitepoolError) -> None:
    """It is the client's fault, and said in one line that every edge can carry."""
    assert error.code in _CLIENTS_FAULTS, error
    check_message(error.message)


def check_message(message: str) -> None:
    assert 0 < len(message) < LONGEST_MESSAGE, message
    assert message.isprintable(), repr(message)


def check_call(call: Call, signature: Signature, body: bytes) -> None:
    """Its tensors fit the signature, and none reaches beyond the body."""
    assert len(call.inputs) == len(signature.inputs)
    assert call.rows >= 1
    assert call.timeout_ns >= 0
    whole = signature.batching is Batching.NONE
    assert not whole or call.rows == 1
    assert not whole or call.form is not Form.INSTANCE or len(call.inputs[0]) == 1
    start = np.frombuffer(body, np.uint8).ctypes.data
    for array, spec in zip(call.inputs, signature.inputs, strict=True):
        assert array.dtype == spec.dtype
        assert array.dtype.isnative
        assert len(array) == call.rows
        assert fits(array.shape[1:], signature.record_shape(spec)), array.shape
        if spec.dtype == STRING:
            assert all(type(value) is bytes for value in array.reshape(-1).tolist())
            continue
        if spec.dtype.kind == "b":
            assert np.ascontiguousarray(array).view(np.uint8).max() <= 1
        low, high = np.lib.array_utils.byte_bounds(array)
        if low < start + len(body) and high > start:
            assert start <= low
            assert high <= start + len(body)


def check_values(call: Call, signature: Signature, expected: Tensors | None) -> None:
    """They are those that another reader finds."""
    if expected is None:
        return
    for array, spec in zip(call.inputs, signature.inputs, strict=True):
        values = expected[spec.name]
        assert array.size == len(values)
        same = (
            array.reshape(-1).tolist() == values.tolist()
            if spec.dtype == STRING
            else array.tobytes() == values.tobytes()
        )
        assert same, (spec.name, array, values)


def check_answer(codec: Codec, call: Call, signature: Signature) -> None:
    """It is well-formed, whatever was asked of it, or refused."""
    outputs = arrays(signature, call.rows, np.random.default_rng(call.rows), outputs=True)
    try:
        answer = codec.encode(call, outputs)
    except (InvalidArgument, UnsupportedFormat) as error:
        check_refusal(error)
        return
    whole = b"".join(answer.pieces) if isinstance(answer, Answer) else answer
    if whole.startswith(b"{"):
        headers = dict(answer.headers) if isinstance(answer, Answer) else {}
        length = int(headers.get(HEADER, b"%d" % len(whole)))
        document = json.loads(whole[:length])
        sizes = [each.get("parameters", {}).get("binary_data_size", 0) for each in _outputs(document)]
        assert length + sum(sizes) == len(whole)


def _outputs(document: dict[str, object]) -> Sequence[dict[str, dict[str, int]]]:
    found = document.get("outputs")
    return [each for each in found if isinstance(each, dict) and "datatype" in each] if isinstance(found, list) else []

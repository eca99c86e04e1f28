"""A body may have any number of small parts, which take time in proportion."""

from contextlib import suppress

import pytest

from app.errors import LitepoolError
from app.protocols.call import Wire
from app.protocols.wires import MAKERS
from tests.examples import TIMES
from tests.fuzz.targets import IDENTITY
from tests.protobuf import field
from tests.signatures import one_in

MANY = 400_000

_FEWER = MANY if TIMES > 1 else MANY // 8
"""Of JSON, of which there is more to try than the suite has time for."""

_TENSOR = field(1, 1) + field(2, field(2, field(1, 1)) + field(2, field(1, 4)))
_INPUT = field(1, "x") + field(2, "FP32") + field(3, b"\x01\x04")

BODIES = {
    "contents of an input": (Wire.GRPC_INFER, field(5, _INPUT + field(5, field(6, b"\0\0\0\0")) * MANY)),
    "inputs": (Wire.GRPC_INFER, field(5, _INPUT) * MANY),
    "parameters": (Wire.GRPC_INFER, field(4, field(1, "a")) * MANY + field(5, _INPUT)),
    "tensors of an input": (Wire.GRPC_PREDICT, field(2, field(1, "x") + field(2, _TENSOR) + field(2, b"(\1") * MANY)),
    "values of a tensor": (Wire.GRPC_PREDICT, field(2, field(1, "x") + field(2, _TENSOR + b"-\0\0\0\0" * MANY))),
    "shapes of a tensor": (Wire.GRPC_PREDICT, field(2, field(1, "x") + field(2, _TENSOR + field(2, b"\x18\0") * MANY))),
    "features": (Wire.GRPC_CLASSIFY, field(2, field(1, field(1, field(1, field(1, field(1, "a")) * MANY))))),
}

_JSON = {
    "lists": b'{"instances":[%b]}' % (b"[]," * _FEWER),
    "gaps behind lists": b'{"instances":[%b]}' % (b"[1]  " * _FEWER),
    "objects": b'{"instances":[%b]}' % (b'{"x":[1,2,3,4]} , ' * _FEWER),
    "one gap": b'{"instances":[[1,2,3,4]%b]}' % (b" " * 5 * _FEWER),
    "gaps at the end": b'{"instances":[[1,2,3,4]]%b' % (b"} " * _FEWER),
    "nesting": b'{"instances":%b' % (b"[" * 5 * _FEWER),
    "tensors by name": b'{"inputs":[%b{}]}' % (b'{"name":"x","data":[1]},' * _FEWER),
    "values without an end": b'{"inputs":[%b' % (b'"data":[[' * _FEWER),
    "values of nothing": b'{"inputs":[%b' % (b'"data" ' * _FEWER),
    "names": b'{%b"signature_name":"x"}' % (b'"signature_name":"",' * _FEWER),
    "examples": b'{"examples":[%b{}]}' % (b'{"x":[]},' * _FEWER),
    "digits": b'{"instances":[[%b]]}' % (b"9" * 5 * _FEWER),
}
for _name, _body in _JSON.items():
    for _wire in (Wire.PREDICT, Wire.SERVING_PREDICT, Wire.SERVING_CLASSIFY, Wire.INFER):
        BODIES[f"{_name}, {_wire.value}"] = _wire, _body


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("what", BODIES)
def test_many_parts_are_read_or_refused_in_the_end(what: str) -> None:
    """Where each part makes all those before be copied, this takes minutes."""
    wire, body = BODIES[what]
    with suppress(LitepoolError):
        MAKERS[wire](IDENTITY, one_in()).decode(body)

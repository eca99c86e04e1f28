"""Whatever body a codec is given, it reads it as it says or refuses it in a sentence."""

import json
import tracemalloc
from collections.abc import Callable

import pytest

from app.protocols import json_pieces
from app.protocols.wires import MAKERS
from tests.fuzz.bodies import BODIES, Body
from tests.fuzz.budget import budget, try_all
from tests.fuzz.checks import check, check_alike
from tests.fuzz.targets import TARGETS, Case, cases, seeds_of
from tests.protobuf import field, varint

every_target = pytest.mark.parametrize("target", TARGETS)


def test_every_wire_format_has_a_target() -> None:
    assert BODIES.keys() >= MAKERS.keys()
    for target in TARGETS:
        assert seeds_of(target), target


@every_target
def test_most_well_formed_bodies_are_read(target: str) -> None:
    """If they were not, their mutations would all be refused for the same reason."""
    found = [check(target, Case(name, body)) for name, bodies in seeds_of(target).items() for body in bodies]
    read = sum(arrays is not None for arrays in found)
    assert read > 0.5 * len(found), (read, len(found))


@every_target
@budget
def test_no_body_does_more_than_be_read_or_refused(target: str, share: int) -> None:
    try_all(target, cases(target), lambda case: check(target, case), share, many=1200)


@every_target
@budget
def test_what_a_codec_has_read_before_changes_nothing(target: str, share: int) -> None:
    try_all(f"{target} again", cases(target), lambda case: check_alike(target, case), share, many=600)


@pytest.fixture
def _in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if bodies of a few dozen bytes were large."""
    monkeypatch.setattr(json_pieces, "LARGE", 16)
    monkeypatch.setattr(json_pieces, "_PIECE", 8)


@pytest.mark.parametrize("target", ["predict", "serving predict", "infer"])
@pytest.mark.usefixtures("_in_pieces")
@budget
def test_nor_does_a_body_that_is_read_in_pieces(target: str, share: int) -> None:
    try_all(f"{target} in pieces", cases(target), lambda case: check(target, case), share, many=500)


MEGABYTE = 1 << 20


@every_target
@budget
def test_what_reading_a_body_takes_of_memory_is_in_proportion(target: str, share: int) -> None:
    def most(case: Case) -> float:
        """Bytes at the worst moment, for each that was given, or of which a tensor is made."""
        tracemalloc.start()
        try:
            arrays = check(target, case)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        # In a message of TensorFlow's one value may stand for a whole tensor, up to a limit of its own.
        made = sum(array.nbytes for array in arrays or ())
        return max(0, peak - MEGABYTE) / (len(case.body.data) + made + 1)

    def measure(case: Case) -> None:
        # What is made once, and then kept, is no matter of the body.
        assert most(case) < 40 or most(case) < 40

    try_all(f"{target} traced", cases(target), measure, share, many=200)


def _infer_of(size: int) -> Body:
    given = {"name": "x", "datatype": "FP32", "shape": [size, 4], "parameters": {"binary_data_size": 0}}
    head = json.dumps({"inputs": [given]}).encode()
    return Body(head, str(len(head)))


def _grpc_infer_of(size: int) -> Body:
    shape = field(3, varint(size) + varint(4))
    return Body(field(5, field(1, "x") + field(2, "FP32") + shape) + field(7, b""))


def _grpc_predict_of(size: int) -> Body:
    shape = field(2, field(2, field(1, size)) + field(2, field(1, 4)))
    return Body(field(2, field(1, "x") + field(2, field(1, 1) + shape + field(5, b"\0\0\0\0"))))


@pytest.mark.parametrize("size", [2**31, 2**40, 2**61, 2**62, 2**63 - 1])
@pytest.mark.parametrize(
    ("target", "body_of"),
    [("infer", _infer_of), ("grpc infer", _grpc_infer_of), ("grpc predict", _grpc_predict_of)],
)
def test_a_shape_alone_makes_nobody_look_for_memory(target: str, body_of: Callable[[int], Body], size: int) -> None:
    tracemalloc.start()
    try:
        assert check(target, Case("float32", body_of(size))) is None
        assert tracemalloc.get_traced_memory()[1] < MEGABYTE
    finally:
        tracemalloc.stop()
    small = check(target, Case("float32", body_of(1)))
    assert (small is not None) == (target == "grpc predict")

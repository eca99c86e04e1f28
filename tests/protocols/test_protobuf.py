"""The wire format as protobuf's own library has it, and what is no such thing."""

import struct

import numpy as np
import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidArgument
from app.protocols import protobuf
from tests.examples import many
from tests.protobuf import field

_TYPES = {
    "number": FieldDescriptorProto.TYPE_INT64,
    "numbers": FieldDescriptorProto.TYPE_INT64,
    "loose": FieldDescriptorProto.TYPE_UINT64,
    "floats": FieldDescriptorProto.TYPE_FLOAT,
    "doubles": FieldDescriptorProto.TYPE_DOUBLE,
    "text": FieldDescriptorProto.TYPE_STRING,
    "data": FieldDescriptorProto.TYPE_BYTES,
    "single": FieldDescriptorProto.TYPE_FLOAT,
    "flags": FieldDescriptorProto.TYPE_BOOL,
}
_REPEATED = {"numbers", "loose", "floats", "doubles", "flags"}
_NUMBERS = {name: number for number, name in enumerate(_TYPES, 1)}


def _make() -> type:
    file = FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    message = DescriptorProto(name="M")
    for name, kind in _TYPES.items():
        label = FieldDescriptorProto.LABEL_REPEATED if name in _REPEATED else FieldDescriptorProto.LABEL_OPTIONAL
        field = message.field.add(name=name, number=_NUMBERS[name], type=kind, label=label)
        if name == "loose":
            field.options.packed = False
    file.message_type.append(message)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("t.M"))


M = _make()


def read(data: bytes) -> dict[int, list[protobuf.Value]]:
    found: dict[int, list[protobuf.Value]] = {}
    for number, _, value in protobuf.fields(memoryview(data)):
        found.setdefault(number, []).append(value)
    return found


INT64 = st.integers(-(2**63), 2**63 - 1)


@given(
    INT64,
    st.lists(INT64),
    st.lists(st.integers(0, 2**64 - 1)),
    st.lists(st.floats(width=32, allow_nan=False)),
    st.lists(st.floats(allow_nan=False)),
    st.text(),
    st.binary(max_size=300),
    st.lists(st.booleans()),
)
def test_what_the_library_writes_is_read_as_it_was(
    number: int,
    numbers: list[int],
    loose: list[int],
    floats: list[float],
    doubles: list[float],
    text: str,
    data: bytes,
    flags: list[bool],
) -> None:
    found = read(
        M(
            number=number,
            numbers=numbers,
            loose=loose,
            floats=floats,
            doubles=doubles,
            text=text,
            data=data,
            flags=flags,
        ).SerializeToString()
    )

    def of(name: str) -> list[protobuf.Value]:
        return found.get(_NUMBERS[name], [])

    assert [protobuf.signed(value) for value in of("number") if isinstance(value, int)] == ([number] if number else [])
    assert protobuf.varints(of("numbers"), np.int64, "n").tolist() == numbers
    assert protobuf.varints(of("loose"), np.uint64, "n").tolist() == loose
    assert protobuf.varints(of("flags"), bool, "n").tolist() == flags
    assert protobuf.fixed(of("floats") or [memoryview(b"")], "<f4", "n").tolist() == floats  # type: ignore[arg-type]
    assert protobuf.fixed(of("doubles") or [memoryview(b"")], "<f8", "n").tolist() == doubles  # type: ignore[arg-type]
    assert [protobuf.text(value, "n") for value in of("text")] == ([text] if text else [])
    assert [bytes(value) for value in of("data")] == ([data] if data else [])


@given(INT64, st.lists(INT64), st.text(), st.binary(max_size=300), st.floats(width=32, allow_nan=False))
def test_what_is_written_the_library_reads(
    number: int, numbers: list[int], text: str, data: bytes, single: float
) -> None:
    written = b"".join(
        [
            protobuf.write_int(_NUMBERS["number"], number),
            protobuf.write_ints(_NUMBERS["numbers"], numbers),
            protobuf.write_bytes(_NUMBERS["text"], text.encode()),
            protobuf.write_bytes(_NUMBERS["data"], data),
            protobuf.write_float(_NUMBERS["single"], single),
        ]
    )
    assert M.FromString(written) == M(number=number, numbers=numbers, text=text, data=data, single=single)  # type: ignore[attr-defined]


def _library_takes(data: bytes) -> bool:
    try:
        Empty.FromString(data)
    except DecodeError:
        return False
    return True


@settings(max_examples=many(500))
@given(st.binary(max_size=60))
def test_what_is_no_message_for_the_library_is_none_here(data: bytes) -> None:
    try:
        found = list(protobuf.fields(memoryview(data)))
    except InvalidArgument as error:
        # It passes over groups and over fields with the number 0, which are refused here.
        stricter = any(words in error.message for words in ("wire type 3", " 0 is no field's number"))
        refused = stricter or not _library_takes(data)
        assert refused
    else:
        assert _library_takes(data)
        assert sum(len(value) for _, _, value in found if isinstance(value, memoryview)) <= len(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x0a\x05ab", r"at byte 0 field 1 has 5 bytes, of which 2 are there"),
        (b"\x08\x01\x0a", r"at byte 2 the bytes end within a field"),
        (b"\x08", r"at byte 0 the bytes end within a field"),
        (b"\x08\x80", r"at byte 0 the bytes end within a field"),
        (b"\x08" + b"\xff" * 11, r"at byte 1 a number has more than 10 bytes"),
        (b"\x0d\0\0\0", r"at byte 0 field 1 ends too soon"),
        (b"\x09\0\0\0\0\0\0\0", r"at byte 0 field 1 ends too soon"),
        (b"\x0b\x0c", r"at byte 0 field 1 has wire type 3, which is none that is in use"),
        (b"\x0f", r"wire type 7"),
        (b"\x02\0", r"at byte 0 0 is no field's number"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", r"of which 0 are there"),
    ],
)
def test_damage_is_refused_saying_where(data: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=f"^X is no protobuf message of its type: .*{message}"):
        list(protobuf.fields(memoryview(data), "X"))


def test_a_view_of_a_message_is_not_copied() -> None:
    data = bytearray(protobuf.write_bytes(4, np.arange(4, dtype="<f4").tobytes()))
    ((_, _, value),) = protobuf.fields(memoryview(data))
    assert isinstance(value, memoryview)
    array = protobuf.fixed([value], "<f4", "x")
    data[-4:] = struct.pack("<f", 9)
    assert array.tolist() == [0, 1, 2, 9]


def test_many_packed_numbers_are_read_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "_CHUNK", 16)
    numbers = [0, 1, 127, 128, 300, 2**64 - 1, 2**63, 5] * 20
    packed = memoryview(b"".join(map(protobuf.write_varint, numbers)))
    assert protobuf.varints([packed], np.uint64, "x").tolist() == numbers
    assert protobuf.varints([packed], np.int32, "x")[:8].tolist() == [0, 1, 127, 128, 300, -1, 0, 5]


@pytest.mark.parametrize("data", [b"\x80", b"\xff" * 10 + b"\x01", b"\x01" + b"\xff" * 300 + b"\x01"])
def test_packed_numbers_that_are_none_are_refused(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protobuf, "_CHUNK", 64)
    with pytest.raises(InvalidArgument, match=r"^x: "):
        protobuf.varints([memoryview(data)], np.uint64, "x")


def test_floats_that_do_not_fill_their_bytes_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="x has 5 bytes: expected a multiple of 4, for float32"):
        protobuf.fixed([memoryview(b"12345")], "<f4", "x")


def test_a_map_is_read_entry_by_entry() -> None:
    data = protobuf.write_bytes(1, b"key") + protobuf.write_int(2, 7)
    key, value = protobuf.entry(memoryview(data), "m")
    assert (bytes(key), value) == (b"key", 7)
    assert [len(part) for part in protobuf.entry(memoryview(b""), "m") if isinstance(part, memoryview)] == [0, 0]


def test_text_is_utf8() -> None:
    with pytest.raises(InvalidArgument, match="name is no UTF-8 text: at byte 1"):
        protobuf.text(memoryview(b"a\xff"), "name")


def test_a_few_numbers_are_read_packed_or_not() -> None:
    packed = memoryview(b"\x01\x80\x02" + b"\xff" * 9 + b"\x01")
    assert protobuf.few([packed, 7, (1 << 64) - 2], "sizes") == [1, 256, -1, 7, -2]
    assert protobuf.few([], "sizes") == []


@pytest.mark.parametrize("data", [b"\x80", b"\x01\xff", b"\x80" * 11])
def test_a_few_numbers_that_are_damaged_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument, match="sizes"):
        protobuf.few([memoryview(data)], "sizes")


def test_a_map_s_message_that_comes_in_parts_is_one_as_the_library_has_it() -> None:
    once = Value(number_value=1)
    both = field(1, "a") + field(2, once.SerializeToString()) + field(2, Value(string_value="b").SerializeToString())

    _, value = protobuf.entry(memoryview(both), "m")

    assert isinstance(value, memoryview)
    whole = Struct.FromString(field(1, both))
    assert Value.FromString(bytes(value)) == whole.fields["a"] == Value(string_value="b")
    assert bytes(value).startswith(once.SerializeToString())

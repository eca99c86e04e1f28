"""Messages between the server and TensorFlow's process. What comes from there is hostile until it is checked."""

import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.runtime import frames
from app.tensors import DTYPES, Array

NUMBERS = [dtype for name, dtype in frames.DTYPES.items() if name != "object"]
CALM = {"arrays": [["float32", [2, 3], 24], ["object", [2], 11]], "k": 1}
CALM_BYTES = np.arange(6, dtype=np.float32).tobytes() + struct.pack("=II", 1, 2) + b"abc"


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    one, other = socket.socketpair()
    with one, other:
        yield one, other


def there_and_back(arrays: list[Array], header: dict[str, Any] | None = None) -> tuple[dict[str, Any], list[Array]]:
    one, other = socket.socketpair()
    with one, other:
        # Of a thread, because what does not fit the socket's buffer waits for its reader.
        sender = threading.Thread(target=frames.send, args=(one, header or {}, arrays))
        sender.start()
        try:
            return frames.receive(other)
        finally:
            sender.join()


def receive(data: bytes) -> tuple[dict[str, Any], list[Array]]:
    """What is made of bytes after which the connection ends."""
    one, other = socket.socketpair()
    with other:
        with one:
            one.sendall(data)
        return frames.receive(other)


def message(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("=I", len(text)) + text + data


def same(have: Array, want: Array) -> bool:
    return have.dtype == want.dtype and have.shape == want.shape and bool(np.array_equal(have, want))


# What arrives is what was sent


@pytest.mark.parametrize("dtype", NUMBERS, ids=str)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0, 3), (3, 0, 2), (2, 1, 2, 1, 2, 1)])
def test_numbers_of_every_dtype_and_rank_arrive(dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)

    _, arrived = there_and_back([array])

    assert len(arrived) == 1
    assert same(arrived[0], array)
    assert arrived[0].flags.writeable


def test_every_dtype_that_is_served_can_be_sent() -> None:
    assert set(frames.DTYPES.values()) >= DTYPES


@pytest.mark.parametrize(
    "strings",
    [[b""], [], [b"a", b"", b"\0\xff"], [[b"one", b"two"], [b"", b"four" * 1000]], b"without a dimension"],
    ids=["empty string", "none", "several", "two dimensions", "none dimension"],
)
def test_strings_arrive_as_bytes(strings: Any) -> None:
    array = np.array(strings, dtype=object)

    _, arrived = there_and_back([array])

    assert same(arrived[0], array)
    assert all(type(item) is bytes for item in arrived[0].ravel().tolist())


def test_an_array_that_is_a_view_in_another_order_arrives_as_it_reads() -> None:
    array = np.arange(24.0).reshape(4, 6)[::2, ::-3].T

    assert same(there_and_back([array])[1][0], array)


def test_what_is_not_finite_arrives_bit_by_bit() -> None:
    bits = np.array([0x7FC00001, 0xFFC12345, 0x7F800000, 0x80000000], np.uint32)

    assert there_and_back([bits.view(np.float32)])[1][0].view(np.uint32).tolist() == bits.tolist()


def test_more_than_a_sockets_buffer_arrives() -> None:
    arrays = [np.random.default_rng(seed).standard_normal(300_000) for seed in range(3)]

    assert all(map(same, there_and_back(arrays)[1], arrays))


def test_more_arrays_than_the_system_takes_at_once_arrive_in_order() -> None:
    arrays = [np.array([number]) for number in range(3000)]

    assert [int(array[0]) for array in there_and_back(arrays)[1]] == list(range(3000))


def test_messages_follow_one_another(ends: tuple[socket.socket, socket.socket]) -> None:
    one, other = ends
    for number in range(3):
        frames.send(one, {"number": number}, [np.full(number, number)])

    for number in range(3):
        header, (array,) = frames.receive(other)
        assert header == {"number": number}
        assert array.tolist() == [number] * number


@given(st.lists(st.lists(st.binary(max_size=20), max_size=5), max_size=4))
def test_strings_of_any_content_arrive(columns: list[list[bytes]]) -> None:
    arrays = []
    for column in columns:
        array = np.empty(len(column), object)
        array[:] = column
        arrays.append(array)

    _, arrived = there_and_back(arrays, {"k": "v"})

    assert [array.tolist() for array in arrived] == columns


# What is not sent


def test_a_string_that_is_not_bytes_is_the_callers_mistake(ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(TypeError):
        frames.send(ends[0], {}, [np.array(["text"], object)])

    ends[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        ends[1].recv(1)


@pytest.mark.parametrize("array", [np.zeros(30), np.array([b"0" * 101], object)], ids=["numbers", "strings"])
def test_too_much_is_not_sent_at_all(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch, array: Array
) -> None:
    monkeypatch.setattr(frames, "MOST_BYTES", 100)

    with pytest.raises(frames.Oversized, match="may have 0"):
        frames.send(ends[0], {}, [array])

    ends[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        ends[1].recv(1)


def test_a_header_that_would_be_too_long_is_not_sent(ends: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(frames.Oversized, match="header"):
        frames.send(ends[0], {"error": "x" * frames.LONGEST_HEADER})


# What is refused


def test_the_calm_message_is_one() -> None:
    header, arrays = receive(message(CALM, CALM_BYTES))

    assert header == {"k": 1}
    assert [array.tolist() for array in arrays] == [[[0, 1, 2], [3, 4, 5]], [b"a", b"bc"]]


@pytest.mark.parametrize("length", range(len(message(CALM, CALM_BYTES))))
def test_a_message_that_is_cut_short_is_an_end(length: int) -> None:
    with pytest.raises(frames.Ended):
        receive(message(CALM, CALM_BYTES)[:length])


@pytest.mark.parametrize(
    "data",
    [
        struct.pack("=I", frames.LONGEST_HEADER + 1),
        b"\xff\xff\xff\xff",
        message(b""),
        message(b"{"),
        message(b"\xff\xfe"),
        message(b"[" * 100_000),
        message(b"9" * 5000),
        message([]),
        message(7),
        message({"arrays": {}}),
        message({"arrays": None}),
    ],
    ids=lambda data: str(data[:20]),
)
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(frames.Broken):
        receive(data)


@pytest.mark.parametrize(
    "described",
    [
        7,
        [],
        ["float32", [1]],
        ["float32", [1], 4, 4],
        ["float32", 1, 4],
        ["float32", [1], "4"],
        ["float32", [1], 4.0],
        ["float32", [1.0], 4],
        ["float32", [True], 4],
        ["float32", [None], 4],
        ["float32", ["1"], 4],
        ["float32", [-1], 4],
        ["float32", [-1, -1], 4],
        ["float32", [1], -4],
        ["float32", [2], 4],
        ["float32", [1], 8],
        ["float32", [0], 4],
        ["float32", [1] * 33, 4],
        ["float32", [0, 1 << 31], 0],
        ["float32", [0, 1 << 30, 1 << 30, 1 << 30], 0],
        ["float32", [1 << 28], 1 << 30 | 4],
        ["float32", [(1 << 28) + 1], (1 << 30) + 4],
        ["uint8", [1 << 16, 1 << 16, 1 << 16, 1 << 16], 0],
        ["object", [2], 7],
        ["object", [1 << 30], 8],
        ["object", [0], 1],
        ["object", [1], 5],
        ["object", [2], 16],
        ["O", [1], 8],
        ["float128", [1], 16],
        ["datetime64[s]", [1], 8],
        [["float32"], [1], 4],
    ],
    ids=str,
)
def test_an_array_that_its_description_does_not_fit_is_refused(described: object) -> None:
    with pytest.raises(frames.Broken):
        receive(message({"arrays": [described]}, b"\0\0\0\0\1\1\1\1" * 2))


def test_all_arrays_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MOST_BYTES", 100)
    one = ["uint8", [60], 60]

    with pytest.raises(frames.Broken, match="in 60 bytes"):
        receive(message({"arrays": [one, one]}, bytes(120)))


@pytest.mark.parametrize("lengths", [(4, 0), (0, 4), (1 << 31, 1 << 31), (0xFFFFFFFF, 4), (1, 1)])
def test_strings_whose_lengths_do_not_add_up_are_refused(lengths: tuple[int, int]) -> None:
    with pytest.raises(frames.Broken, match="lengths"):
        receive(message({"arrays": [["object", [2], 11]]}, struct.pack("=II", *lengths) + b"abc"))


def test_booleans_are_0_or_1_whatever_arrives() -> None:
    _, (array,) = receive(message({"arrays": [["bool", [4], 4]]}, b"\0\1\2\xff"))

    assert array.view(np.uint8).tolist() == [0, 1, 1, 1]


@given(st.data())
def test_a_message_with_bytes_changed_is_refused_or_is_another(data: st.DataObject) -> None:
    changed = bytearray(message(CALM, CALM_BYTES))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))

    try:
        header, arrays = receive(bytes(changed))
    except (frames.Broken, frames.Ended):
        return
    assert isinstance(header, dict)
    assert all(array.dtype in frames.DTYPES.values() for array in arrays)


@given(st.binary(max_size=200))
def test_bytes_of_any_kind_are_refused_or_are_a_message(data: bytes) -> None:
    try:
        receive(struct.pack("=I", len(data) // 2) + data)
    except (frames.Broken, frames.Ended):
        return

"""HPACK by the examples of RFC 7541 and against another implementation of it."""

from contextlib import suppress

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.server.h2.frames import ConnectionFault, ErrorCode
from app.server.h2.hpack import Decoder, encode

FIRST = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"www.example.com")]
SECOND = [*FIRST, (b"cache-control", b"no-cache")]
THIRD = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":path", b"/index.html"),
    (b":authority", b"www.example.com"),
    (b"custom-key", b"custom-value"),
]
PLAIN = [
    "828684410f7777772e6578616d706c652e636f6d",
    "828684be58086e6f2d6361636865",
    "828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565",
]
HUFFMAN = [
    "828684418cf1e3c2e5f23a6ba0ab90f4ff",
    "828684be5886a8eb10649cbf",
    "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
]


@pytest.mark.parametrize("blocks", [PLAIN, HUFFMAN], ids=["appendix C.3", "appendix C.4"])
def test_the_requests_of_rfc_7541_are_read(blocks: list[str]) -> None:
    decoder = Decoder(4096)
    assert [decoder.decode(bytes.fromhex(block)) for block in blocks] == [FIRST, SECOND, THIRD]


NAMES = st.sampled_from([b":path", b"te", b"x", b"grpc-timeout", b"accept", b"long-" * 30])
VALUES = st.one_of(st.sampled_from([b"", b"/", b"trailers", b"gzip, deflate"]), st.binary(max_size=300))
LISTS = st.lists(st.tuples(NAMES, VALUES, st.booleans()), max_size=12)


@given(st.lists(st.tuples(LISTS, st.booleans(), st.sampled_from([None, 0, 60, 200, 4096])), max_size=12))
def test_what_another_encoder_writes_is_read_with_its_table(
    lists: list[tuple[list[tuple[bytes, bytes, bool]], bool, int | None]],
) -> None:
    encoder, decoder = hpack.Encoder(), Decoder(1 << 20)
    for fields, huffman, size in lists:
        if size is not None:
            encoder.header_table_size = size
        block = encoder.encode(fields, huffman)
        assert decoder.decode(block) == [(name, value) for name, value, _ in fields]


@given(st.lists(st.tuples(NAMES, VALUES), max_size=12))
def test_what_is_written_is_read_by_another_decoder_and_leaves_its_table_alone(
    fields: list[tuple[bytes, bytes]],
) -> None:
    decoder = hpack.Decoder()
    assert list(decoder.decode(encode(*fields), raw=True)) == fields
    assert not decoder.header_table.dynamic_entries


@given(st.binary(max_size=64))
def test_bytes_that_are_no_block_are_a_compression_error_or_read(block: bytes) -> None:
    # Nothing else is raised.
    with suppress(ConnectionFault):
        Decoder(4096).decode(block)


@pytest.mark.parametrize(
    "block",
    [
        "80",
        "be",
        "ff",
        "ffffffffffffff",
        "ffffffffff0f",
        "4001",
        "400a63",
        "7e00",
        "0f",
        "3fe21f",
        "8220",
        "4081ff00",
        "0001618aff",
    ],
    ids=[
        "index 0",
        "an index beyond the table",
        "an index that does not end",
        "an index that goes on for ever",
        "an index of 2^32",
        "a name that is not there",
        "a name cut short",
        "a name beyond the table",
        "a literal that does not end",
        "a table of more than 4096 bytes",
        "a size of the table behind a field",
        "Huffman padding of eight bits",
        "a value cut short",
    ],
)
def test_a_block_that_is_not_valid_is_a_compression_error(block: str) -> None:
    with pytest.raises(ConnectionFault) as caught:
        Decoder(4096).decode(bytes.fromhex(block))
    assert caught.value.code == ErrorCode.COMPRESSION_ERROR


def test_a_list_that_is_too_long_is_not_kept_but_moves_the_table() -> None:
    encoder, decoder = hpack.Encoder(), Decoder(200)
    assert decoder.decode(encoder.encode([(b"one", b"1"), (b"two", b"2" * 200)])) is None
    assert decoder.decode(encoder.encode([(b"one", b"1")])) == [(b"one", b"1")]
    assert decoder.decode(encoder.encode([(b"two", b"2" * 200)])) is None


def test_a_field_that_is_named_very_often_costs_no_memory() -> None:
    encoder, decoder = hpack.Encoder(), Decoder(1 << 16)
    block = encoder.encode([(b"large", b"x" * 3000)])
    assert decoder.decode(block) is not None
    assert decoder.decode(b"\xbe" * 60_000) is None


def test_the_count_of_changes_moves_only_with_the_table() -> None:
    encoder, decoder = hpack.Encoder(), Decoder(4096)
    block = [encoder.encode([(b"one", b"1"), (b":method", b"POST")]) for _ in range(3)]
    decoder.decode(block[0])
    changes = decoder.changes
    decoder.decode(block[1])
    decoder.decode(block[2])
    decoder.decode(bytes.fromhex("0001610162"))
    assert decoder.changes == changes
    decoder.decode(encoder.encode([(b"two", b"2")]))
    assert decoder.changes > changes

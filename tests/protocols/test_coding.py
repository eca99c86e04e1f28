import gzip
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidArgument, TooLarge, UnsupportedFormat
from app.protocols.call import JSON, OCTETS, Answer, Call, Form
from app.protocols.coding import Deflating, Inflating, coding_of, deflate, inflate, wanted_coding

PLAIN = b"a body of a request " * 50
BARE = zlib.compress(PLAIN)[2:-4]


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", ""),
        ("identity", ""),
        ("gzip", "gzip"),
        (" GZip ", "gzip"),
        ("x-gzip", "gzip"),
        ("deflate, identity", "deflate"),
    ],
)
def test_a_body_s_coding_is_named_in_many_ways(header: str, coding: str) -> None:
    assert coding_of(header) == coding


@pytest.mark.parametrize("header", ["br", "zstd", "gzip, deflate", "gzip, gzip", "gzip;q=1"])
def test_another_coding_is_refused_with_those_that_are_known(header: str) -> None:
    with pytest.raises(UnsupportedFormat, match=r"Content-Encoding: expected gzip, deflate or none, found"):
        coding_of(header)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("GZIP;q=0.5", "gzip"),
        ("gzip, identity", "gzip"),
        ("gzip, br;q=0", "gzip"),
        ("", ""),
        ("*", ""),
        ("br", ""),
        ("gzip, deflate", ""),
        ("gzip, deflate, br, zstd", ""),
        ("gzip; q=0", ""),
    ],
)
def test_only_who_names_a_single_coding_wants_it(header: str, coding: str) -> None:
    assert wanted_coding(header) == coding


@pytest.mark.parametrize(
    ("body", "coding"),
    [(gzip.compress(PLAIN), "gzip"), (zlib.compress(PLAIN), "deflate"), (BARE, "deflate")],
    ids=["gzip", "zlib", "bare deflate"],
)
def test_a_compressed_body_is_inflated(body: bytes, coding: str) -> None:
    assert inflate(body, coding, len(PLAIN)) == PLAIN


@pytest.mark.parametrize(
    "body",
    [b"", b"x", gzip.compress(PLAIN)[:-1], gzip.compress(PLAIN) + b"x", gzip.compress(PLAIN) * 2, PLAIN, BARE],
    ids=["empty", "short", "cut", "longer", "two members", "plain", "bare deflate"],
)
def test_a_damaged_body_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgument, match="the body is no gzip data, or is damaged"):
        inflate(body, "gzip", 1 << 20)


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_body_that_becomes_too_large_is_refused(coding: str) -> None:
    with pytest.raises(TooLarge, match="more than 999 bytes when it is inflated"):
        inflate(deflate([PLAIN], coding), coding, 999)


@given(pieces=st.lists(st.binary(max_size=50), max_size=5), coding=st.sampled_from(["gzip", "deflate"]))
def test_what_is_deflated_is_inflated_to_the_same(pieces: list[bytes], coding: str) -> None:
    whole = b"".join(pieces)
    assert inflate(deflate(pieces, coding), coding, max(1, len(whole))) == whole


class Plain:
    """A codec whose answer is the body."""

    def decode(self, body: bytes) -> Call:
        return Call((np.frombuffer(body, np.uint8)[np.newaxis],), 1, Form.INSTANCE)

    def encode(self, call: Call, outputs: object) -> bytes | Answer:
        (array,) = call.inputs
        if call.asks:
            return Answer((b"head", memoryview(array.tobytes())), OCTETS, ((b"x", b"1"),))
        return array.tobytes()


def test_a_codec_reads_through_a_coding_and_writes_through_one() -> None:
    read = Inflating(Plain(), "gzip", 1 << 20)
    written = Deflating(Plain(), "deflate", JSON)
    call = read.decode(gzip.compress(PLAIN))

    assert read.encode(call, []) == PLAIN
    assert written.decode(PLAIN).inputs[0].tobytes() == PLAIN
    answer = written.encode(call, [])
    assert (zlib.decompress(answer.pieces[0]), answer.media_type) == (PLAIN, JSON)
    assert answer.headers == ((b"content-encoding", b"deflate"),)


def test_an_answer_in_pieces_keeps_its_headers() -> None:
    written = Deflating(Plain(), "gzip", JSON)

    answer = written.encode(written.decode(PLAIN)._replace(asks=True), [])

    assert gzip.decompress(answer.pieces[0]) == b"head" + PLAIN
    assert answer.media_type == OCTETS
    assert answer.headers == ((b"x", b"1"), (b"content-encoding", b"gzip"))

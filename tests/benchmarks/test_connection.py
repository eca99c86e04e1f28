"""Cutting answers out of the byte stream."""

import pytest

from benchmarks.connection import AnswerParser, BrokenAnswerError, content_length, unchunk

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
OTHER = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nyes"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nfull"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"


@pytest.mark.parametrize("answer", [PLAIN, OTHER, REFUSED, CHUNKED])
def test_an_answer_is_whole_at_its_last_byte_and_not_before(answer: bytes) -> None:
    parser = AnswerParser()
    assert [size for size in range(1, len(answer) + 1) if parser.whole(answer[:size])] == [len(answer)]


def test_answers_like_the_one_before_and_unlike_it_are_both_understood() -> None:
    parser = AnswerParser()
    bodies = []
    for answer in (PLAIN, PLAIN, OTHER, CHUNKED, PLAIN):
        assert parser.whole(answer)
        bodies.append(parser.body(answer))
    assert bodies == [b"hello", b"hello", b"yes", b"hello", b"hello"]


def test_only_a_2xx_is_good() -> None:
    parser = AnswerParser()
    good = []
    for answer in (PLAIN, REFUSED, REFUSED, PLAIN):
        parser.whole(answer)
        good.append(parser.good)
    assert good == [True, False, False, True]


def test_an_answer_of_another_length_is_not_taken_for_the_one_before() -> None:
    parser = AnswerParser()
    assert parser.whole(PLAIN)
    assert not parser.whole(PLAIN.replace(b"Length: 5", b"Length: 6"))


def test_an_answer_with_neither_length_nor_chunks_is_broken() -> None:
    with pytest.raises(BrokenAnswerError):
        content_length(b"HTTP/1.1 200 OK\r\n\r\n")


def test_chunks_are_put_together_without_their_sizes() -> None:
    assert unchunk(b"3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n") == b"hello"

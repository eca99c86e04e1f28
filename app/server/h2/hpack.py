"""Header compression (HPACK, RFC 7541): blocks of requests to fields, and fields of answers to blocks.

Written for what gRPC clients send, call after call: fields that are in a table. The tables of Huffman codes and of
static fields are those of the library `hpack`; its decoder is not used, because it takes about ten times as long and
loses step with the client's table when a list of headers is too long.

Answers use the static table and literals that are not indexed, so that one block is right on every connection.
"""

from typing import TypeAlias

from hpack.exceptions import HPACKDecodingError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from app.server.h2.frames import ConnectionFault, ErrorCode

Field: TypeAlias = tuple[bytes, bytes]

_STATIC: tuple[Field, ...] = ((b"", b""), *HeaderTable.STATIC_TABLE)
_STATIC_NAMES = {name: index for index, (name, _) in reversed(list(enumerate(_STATIC)))}
_STATIC_FIELDS = {field: index for index, field in enumerate(_STATIC)}
_TABLE_BYTES = 4096
"""The size of the dynamic table when no setting says otherwise, as ours say nothing."""

_FIELD_BYTES = 32
"""What a field counts beside its name and value."""

_LARGEST_SHIFT = 28


class Decoder:
    """The fields of one connection's blocks, in the order in which they come.

    Args:
        most: bytes of a list of headers, each counted with 32 more, above which it is not kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._table: list[Field] = []
        """The newest is last, so that field 62 is `[-1]`."""
        self._size = 0
        self._max_size = _TABLE_BYTES
        self.changes = 0
        """How often the table has changed: the same block means the same while this is the same."""

    def decode(self, block: bytes) -> list[Field] | None:
        """The fields of a block; None if they are too many, in which case the table is still as the client's.

        Raises:
            ConnectionFault: the block is not HPACK.
        """
        try:
            return self._decode(block)
        except (IndexError, HPACKDecodingError) as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header block is not valid HPACK") from error

    def _decode(self, block: bytes) -> list[Field] | None:
        table = self._table
        fields: list[Field] = []
        size = at = 0
        end = len(block)
        while at < end:
            octet = block[at]
            at += 1
            if octet & 0x80:
                index = octet & 0x7F
                if index == 0x7F:
                    index, at = _integer(block, at, 0x7F)
                field = _STATIC[index] if index < 62 else table[61 - index]
                if not index:
                    raise IndexError
            elif octet & 0x40:
                field, at = self._literal(block, at, octet & 0x3F, 0x3F)
                self._add(field)
            elif octet & 0x20:
                new_size = octet & 0x1F
                if new_size == 0x1F:
                    new_size, at = _integer(block, at, 0x1F)
                if size or new_size > _TABLE_BYTES:
                    raise IndexError
                self._max_size = new_size
                self._shrink()
                continue
            else:
                field, at = self._literal(block, at, octet & 0x0F, 0x0F)
            size += len(field[0]) + len(field[1]) + _FIELD_BYTES
            if size <= self._most:
                fields.append(field)
        return fields if size <= self._most else None

    def _literal(self, block: bytes, at: int, index: int, mask: int) -> tuple[Field, int]:
        if index == mask:
            index, at = _integer(block, at, mask)
        if not index:
            name, at = _string(block, at)
        else:
            name = (_STATIC[index] if index < 62 else self._table[61 - index])[0]
        value, at = _string(block, at)
        return (name, value), at

    def _add(self, field: Field) -> None:
        self._table.append(field)
        self._size += len(field[0]) + len(field[1]) + _FIELD_BYTES
        self._shrink()

    def _shrink(self) -> None:
        self.changes += 1
        gone = 0
        while self._size > self._max_size:
            name, value = self._table[gone]
            self._size -= len(name) + len(value) + _FIELD_BYTES
            gone += 1
        if gone:
            del self._table[:gone]


def _integer(block: bytes, at: int, number: int) -> tuple[int, int]:
    """What goes on behind a prefix that is full, and where it ends (RFC 7541, section 5.1)."""
    shift = 0
    while True:
        octet = block[at]
        at += 1
        number += (octet & 0x7F) << shift
        if not octet & 0x80:
            return number, at
        shift += 7
        if shift > _LARGEST_SHIFT:
            raise IndexError


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    octet = block[at]
    at += 1
    length = octet & 0x7F
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    stop = at + length
    if stop > len(block):
        raise IndexError
    text = block[at:stop]
    return (decode_huffman(text) if octet & 0x80 else text), stop


def encode(*fields: Field) -> bytes:
    """A block of fields that changes no table."""
    block = bytearray()
    for name, value in fields:
        index = _STATIC_FIELDS.get((name, value), 0)
        if index:
            block.append(0x80 | index)
            continue
        index = _STATIC_NAMES.get(name, 0)
        _put_integer(block, 0x00, 0x0F, index)
        if not index:
            _put_integer(block, 0x00, 0x7F, len(name))
            block += name
        _put_integer(block, 0x00, 0x7F, len(value))
        block += value
    return bytes(block)


def _put_integer(block: bytearray, first: int, mask: int, number: int) -> None:
    if number < mask:
        block.append(first | number)
        return
    block.append(first | mask)
    number -= mask
    while number > 0x7F:
        block.append(0x80 | number & 0x7F)
        number >>= 7
    block.append(number)

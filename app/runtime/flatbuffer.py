"""Whether a `.tflite` file is whole, before anything reads it on trust.

A FlatBuffer is tables that point to one another by offsets. The generated readers do not look whether an offset or a
length stays within the file, and answer nonsense, fail anyhow, or count to four billion where it does not. So every
table that the schema knows is visited here by a reader that looks first, as FlatBuffers' verifier does in C++; there
is none in Python. Afterwards the generated readers may be trusted.
"""

import inspect
from functools import cache
from mmap import mmap
from typing import Any

from app.errors import ModelError
from app.runtime.interpreter import schema

Content = bytes | memoryview | mmap

LARGEST = 2**31 - 1
"""Bytes. FlatBuffers' offsets are 32 bits wide, and its own verifier takes no more."""

_IDENTIFIER = b"TFL3"
_MOST_TABLES = 250_000
"""Large language models have some ten thousand. One table may be pointed to by many, so that even a small file can ask
for more visits than anybody waits for."""

_UNIONS = {
    "BuiltinOptions": ("BuiltinOptionsType", schema.BuiltinOptions),
    "BuiltinOptions2": ("BuiltinOptions2Type", schema.BuiltinOptions2),
    "Details": ("DetailsType", schema.QuantizationDetails),
    "ArraySegments": ("ArraySegmentsType", schema.SparseIndexVector),
    "ArrayIndices": ("ArrayIndicesType", schema.SparseIndexVector),
}
"""Fields whose table is of the kind that another field tells."""


def damaged(what: str) -> ModelError:
    """The error for a file that no interpreter should be shown."""
    return ModelError(f"the file is damaged: {what}")


def read_model(content: Content) -> Any:
    """The root of a file, a `schema.Model`, once all that it leads to has been found within the file.

    Raises:
        ModelError: it is no `.tflite` file, too large, cut short or damaged.
    """
    size = len(content)
    if size > LARGEST:
        raise ModelError(f"the file has {size:,} bytes, more than the {LARGEST:,} that a .tflite file can have")
    if size < 8 or bytes(content[4:8]) != _IDENTIFIER:
        raise ModelError("the file is no .tflite model: it lacks the mark TFL3 at byte 4")
    root = _Reader(content, 0, "the root").Indirect(0)
    waiting: list[tuple[Any, int]] = [(schema.Model, root)]
    visits = 0
    while waiting:
        kind, position = waiting.pop()
        visits += 1
        found = _tables_of(kind, _Reader(content, position, kind.__name__))
        if visits + len(waiting) + len(found) > _MOST_TABLES:
            raise damaged(f"it has more than {_MOST_TABLES:,} tables")
        waiting += found
    return schema.Model.GetRootAs(content, 0)


def _tables_of(kind: Any, reader: "_Reader") -> list[tuple[Any, int]]:
    """Read every field of one table, and name the tables that it points to."""
    table = kind()
    table._tab = reader
    found = []
    single, many = _fields(kind)
    for name in single:
        reader.field = name
        value = getattr(table, name)()
        if name in _UNIONS:
            chosen = _member(table, name, reader)
            if chosen is not None and value is not None:
                found.append((chosen, value.Pos))
        elif hasattr(value, "_tab"):
            found.append((type(value), value._tab.Pos))
    for name in many:
        reader.field = name
        read = getattr(table, name)
        for place in range(getattr(table, name + "Length")()):
            item = read(place)
            found.append((type(item), item._tab.Pos))
    return found


def _member(table: Any, name: str, reader: "_Reader") -> Any:
    """The class of a union's table, None where the union says that it holds nothing."""
    by, union = _UNIONS[name]
    number = getattr(table, by)()
    if number == 0:
        return None
    names = {value: key for key, value in vars(union).items() if isinstance(value, int)}
    if number not in names:
        raise reader.wrong(f"is of the kind {number}, which is not known")
    return getattr(schema, names[number])


@cache
def _fields(kind: Any) -> tuple[list[str], list[str]]:
    """The generated methods to call: of scalars, strings, tables and plain vectors, and those of vectors of tables."""
    arguments = {
        name: value.__code__.co_argcount
        for name, value in vars(kind).items()
        if inspect.isfunction(value) and name != "Init"
    }
    vectors = [name for name, count in arguments.items() if count == 2]
    plain = [name for name in vectors if name + "AsNumpy" in arguments]
    aside = {name + ending for name in vectors for ending in ("", "Length", "IsNone")}
    return [name for name in arguments if name not in aside], [name for name in vectors if name not in plain]


class _Reader:
    """One table's bytes, looked at before they are read.

    It has the methods and attributes of `flatbuffers.table.Table` that the generated code calls, and none of its trust.
    """

    def __init__(self, content: Content, position: int, kind: str) -> None:
        self.Bytes, self.Pos = content, position
        self._size = len(content)
        self._kind = kind
        self.field = ""
        if kind == "the root":
            return
        self._vtable = position - self._number("<i", position, 4)
        self._vtable_size = self._number("<H", self._vtable, 2)
        if self._vtable_size < 4 or self._vtable_size % 2:
            raise self.wrong("has no table of fields")
        self._within(self._vtable, self._vtable_size)
        self._within(position, self._number("<H", self._vtable + 2, 2))

    def wrong(self, what: str) -> ModelError:
        field = f".{self.field.removesuffix('AsNumpy')}" if self.field else ""
        return damaged(f"{self._kind}{field} at byte {self.Pos} {what}")

    def _within(self, start: int, length: int) -> None:
        if start < 0 or start + length > self._size:
            raise self.wrong("reaches out of the file")

    def _number(self, form: str, position: int, width: int) -> int:
        self._within(position, width)
        return int.from_bytes(self.Bytes[position : position + width], "little", signed=form == "<i")

    def Offset(self, slot: int) -> int:  # noqa: N802  The generated code calls it so, here and below.
        return self._number("<H", self._vtable + slot, 2) if slot < self._vtable_size else 0

    def Get(self, flags: Any, position: int) -> Any:  # noqa: N802
        self._within(position, flags.bytewidth)
        return flags.py_type(flags.packer_type.unpack_from(self.Bytes, position)[0])

    def Indirect(self, position: int) -> int:  # noqa: N802
        target = position + self._number("<I", position, 4)
        self._within(target, 1)
        return target

    def String(self, position: int) -> bytes:  # noqa: N802
        start = self.Indirect(position)
        length = self._number("<I", start, 4)
        self._within(start + 4, length + 1)
        if self.Bytes[start + 4 + length] != 0:
            raise self.wrong("is a text without an end")
        return b""

    def VectorLen(self, offset: int) -> int:  # noqa: N802
        """Of a vector of tables: others are looked at as a whole."""
        start = self.Indirect(self.Pos + offset)
        length = self._number("<I", start, 4)
        self._within(start + 4, length * 4)
        if length > _MOST_TABLES:
            raise damaged(f"it has more than {_MOST_TABLES:,} tables")
        return length

    def Vector(self, offset: int) -> int:  # noqa: N802
        return self.Indirect(self.Pos + offset) + 4

    def GetVectorAsNumpy(self, flags: Any, offset: int) -> None:  # noqa: N802
        start = self.Indirect(self.Pos + offset)
        self._within(start + 4, self._number("<I", start, 4) * int(flags.bytewidth))

    def Union(self, table: Any, offset: int) -> None:  # noqa: N802
        table.Bytes, table.Pos = self.Bytes, self.Indirect(self.Pos + offset)

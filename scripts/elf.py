"""Lets a program of Linux start without shared libraries that it names and seldom needs."""

import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_NEEDED = 1  # DT_NEEDED
_WEAK = 2 << 4  # STB_WEAK
_UNVERSIONED = 1  # VER_NDX_GLOBAL


@dataclass(frozen=True)
class _Section:
    offset: int
    size: int

    def entries(self, size: int) -> Iterator[int]:
        """Where each entry of `size` bytes begins."""
        return iter(range(self.offset, self.offset + self.size, size))


class Program:
    """A 64-bit little-endian ELF file with versioned symbols.

    Args:
        content: the file's bytes.

    Raises:
        ValueError: it is something else.
    """

    def __init__(self, content: bytes) -> None:
        if content[:6] != b"\x7fELF\x02\x01":
            raise ValueError("expected a 64-bit little-endian ELF file")
        self._bytes = bytearray(content)
        (table,) = struct.unpack_from("<Q", content, 0x28)
        size, count, names = struct.unpack_from("<HHH", content, 0x3A)
        headers = [struct.unpack_from("<I20xQQ", content, table + number * size) for number in range(count)]
        self._sections = {
            self._text(headers[names][1] + name): _Section(offset, length) for name, offset, length in headers
        }
        self._strings = self._sections[".dynstr"].offset

    def forgo(self, libraries: Collection[str], functions: tuple[str, ...]) -> bytes:
        """The program's bytes, without the need for `libraries`; it crashes only where it calls one of their functions.

        Args:
            functions: how the names of the libraries' functions begin.
        """
        self._forget_libraries(libraries)
        self._forget_versions(libraries)
        versions = self._sections[".gnu.version"].offset
        for number, symbol in enumerate(self._sections[".dynsym"].entries(24)):
            name, info = struct.unpack_from("<IB", self._bytes, symbol)
            if self._text(self._strings + name).startswith(functions):
                struct.pack_into("<B", self._bytes, symbol + 4, _WEAK | info & 0xF)
                struct.pack_into("<H", self._bytes, versions + 2 * number, _UNVERSIONED)
        return bytes(self._bytes)

    def _forget_libraries(self, libraries: Collection[str]) -> None:
        """Name another library that is needed in the place of each: to name one twice does no harm."""
        needed = {}
        for entry in self._sections[".dynamic"].entries(16):
            tag, value = struct.unpack_from("<QQ", self._bytes, entry)
            if tag == _NEEDED:
                needed[self._text(self._strings + value)] = (entry, value)
        _, kept = next(place for name, place in needed.items() if name not in libraries)
        for library in libraries:
            entry, _ = needed[library]
            struct.pack_into("<Q", self._bytes, entry + 8, kept)

    def _forget_versions(self, libraries: Collection[str]) -> None:
        """Leave the libraries out of the chain of those whose versions are checked."""
        place = before = self._sections[".gnu.version_r"].offset
        while True:
            file, following = struct.unpack_from("<4xI4xI", self._bytes, place)
            if self._text(self._strings + file) not in libraries:
                before = place
            elif place == before:
                raise ValueError("the first library of the chain cannot be left out")
            else:
                (step,) = struct.unpack_from("<I", self._bytes, before + 12)
                struct.pack_into("<I", self._bytes, before + 12, step + following if following else 0)
            if not following:
                return
            place += following

    def _text(self, place: int) -> str:
        return bytes(self._bytes[place : self._bytes.index(0, place)]).decode()

"""Connections accepted by one process and given to workers, each to the one that has the fewest open.

Workers that accept from one listening socket share its connections by chance: the kernel wakes whichever is quickest,
and of 8 connections one of two workers may well get 6. `SO_REUSEPORT` goes by a hash of the addresses, which is chance
as well. Descriptors go over a Unix socket (SCM_RIGHTS, unix(7)).
"""

import logging
import mmap
import os
import socket
import tempfile

log = logging.getLogger(__name__)

HTTP, GRPC = b"h", b"g"
"""What is spoken on a connection."""

_AT_ONCE = 64
"""Connections taken before those that are there already are looked at again."""


def _shared_bytes(size: int) -> int:
    """The descriptor of a file of zeros without a name."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("litepool-connections")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    os.truncate(fd, size)
    return fd


class Count:
    """A number in memory that two processes share: one writes it, the other reads it.

    Args:
        fd: a file of 8 bytes at least.
    """

    def __init__(self, fd: int) -> None:
        # One aligned word, so that it is never seen half written.
        self._cell = memoryview(mmap.mmap(fd, 8)).cast("Q")

    @property
    def value(self) -> int:
        return self._cell[0]

    def add_one(self) -> None:
        self._cell[0] += 1


class Giver:
    """The accepting process's side of one worker."""

    def __init__(self) -> None:
        self._channel, self._theirs = socket.socketpair()
        self._channel.setblocking(False)
        self._count_fd = _shared_bytes(8)
        self._closed = Count(self._count_fd)
        self._given = 0
        self.usable = True
        """False once the worker takes no more."""

    @property
    def passed(self) -> tuple[int, int]:
        """The descriptors that the worker inherits, for its `Taker`; `handed` is called once it has them."""
        return self._theirs.fileno(), self._count_fd

    def handed(self) -> None:
        self._theirs.close()
        os.close(self._count_fd)

    @property
    def open(self) -> int:
        """Connections that the worker has or will have, and that are not closed."""
        return self._given - self._closed.value

    def fileno(self) -> int:
        return self._channel.fileno()

    def give(self, connection: socket.socket, kind: bytes = HTTP) -> bool:
        """Hand over a connection, whose descriptor is then the caller's to close; False when the worker is gone.

        Args:
            kind: what is spoken on it, one byte.

        Raises:
            BlockingIOError: too many wait to be taken already; `fileno` is writable when there is room.
            OSError: the system cannot for the moment: too many descriptors under way, or no memory.
        """
        try:
            socket.send_fds(self._channel, [kind], [connection.fileno()])
        except ConnectionError:
            self.usable = False
            return False
        self._given += 1
        return True

    def close(self) -> None:
        """What was given before is taken still."""
        self.usable = False
        self._channel.close()


class Taker:
    """A worker's side."""

    def __init__(self, channel_fd: int, count_fd: int) -> None:
        self._channel = socket.socket(fileno=channel_fd)
        self._channel.setblocking(False)
        self._closed = Count(count_fd)
        os.close(count_fd)

    def fileno(self) -> int:
        return self._channel.fileno()

    def take(self) -> list[tuple[socket.socket, bytes]]:
        """Connections that were given since, with their kind; call when `fileno` is readable.

        Raises:
            EOFError: there will be no more.
        """
        taken: list[tuple[socket.socket, bytes]] = []
        # Descriptors come message by message, however much room there is.
        while len(taken) < _AT_ONCE:
            try:
                data, fds, _, _ = socket.recv_fds(self._channel, 1, 1)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b""
            if not data:
                if taken:
                    break
                raise EOFError
            if not fds:
                # This process may open no more, and the kernel has closed it: its client is cut off.
                log.warning("a connection was lost: this worker has as many open files as it may")
                self.closed()
            for fd in fds:
                connection = socket.socket(fileno=fd)
                connection.setblocking(False)
                taken.append((connection, data))
        return taken

    def closed(self) -> None:
        """Tell that one of the connections is closed."""
        self._closed.add_one()

    def refuse(self) -> None:
        """Take no more than has been given: the giver will find that out."""
        self._channel.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        self._channel.close()

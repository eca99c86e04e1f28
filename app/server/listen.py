"""The listening socket, made before anything slow is imported so that a wrong address is told at once."""

import ctypes
import logging
import resource
import socket
import struct
import sys
import tempfile

log = logging.getLogger(__name__)

BACKLOG_SECONDS = 0.1
"""How long the last connections may take from the kernel's hands into ours; a turn of the loop would do on loopback."""

_MOST_FILES = 1 << 16

_LONGEST_FOLDER = 80
"""Characters of a temporary folder's name that leave room for a socket's: its path has 104 bytes or 108 (unix(7))."""

_SO_ATTACH_FILTER = 26
_NO_NEW_CONNECTIONS = (
    (0x30, 0, 0, 13),  # the byte of the TCP header that holds the flags
    (0x45, 0, 2, 0x02),  # without SYN: take it
    (0x45, 1, 0, 0x10),  # SYN with ACK: take it
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # take
)
"""A classic BPF program (linux/filter.h): code, jump if true, jump if false, operand."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        OSError: the address cannot be had.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
    try:
        sock.bind(address)
        sock.listen(4096)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def short_folder() -> str | None:
    """Where folders for sockets are made: None for the usual place, if that leaves room for a socket's name."""
    return None if len(tempfile.gettempdir()) <= _LONGEST_FOLDER else "/tmp"  # noqa: S108  made by mkdtemp


def allow_many_connections() -> None:
    """Let this process, and those that it starts, have as many open files as the system lets them ask for.

    The usual 1,024 are a habit from the days of select(2), and each connection takes one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def url_of(sock: socket.socket, scheme: str = "http") -> str:
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def refuse_new(sock: socket.socket) -> None:
    """Have the kernel begin no more connections on a listening socket, so that those it has begun can all be accepted.

    Closing the socket resets whatever waits in its backlog, and between the last look at the backlog and the close one
    more connection can always come. Where there are no socket filters, that moment remains.
    """
    if not sys.platform.startswith("linux"):
        return
    program = b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_NEW_CONNECTIONS)
    buffer = ctypes.create_string_buffer(program)
    # struct sock_fprog: the number of instructions, and a pointer to them.
    filter_ = struct.pack("HP", len(_NO_NEW_CONNECTIONS), ctypes.addressof(buffer))
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_)
    except OSError as error:
        log.debug("new connections cannot be filtered: %s", error)

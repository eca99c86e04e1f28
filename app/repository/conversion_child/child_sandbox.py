"""What the child gives up before it meets a model: memory, files, connections, and life beyond its server's."""

import contextlib
import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

# Rights of Landlock, as linux/landlock.h numbers them. A rule for a file, not a folder, may give those of files only.
READS = 1 << 2 | 1 << 3
WRITES = 1 << 1 | 0x7FF << 4
_MOVE = 1 << 13
_OF_FILES = 1 << 1 | 1 << 2 | 1 << 14
_SYSTEM = ("/dev/null", "/dev/urandom", "/etc/ld.so.cache", "/lib", "/lib64", "/usr")
_SYSTEM_FACTS = ("/proc/cpuinfo", "/proc/meminfo", "/proc/self", "/proc/stat", "/sys/devices/system")


def confine(memory: int, parent: int) -> None:
    """Bound what a hostile model can use, and end with the server."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)
    os.nice(10)
    limit(memory)


def limit(memory: int) -> None:
    """Bound the address space, and the size of any file, in bytes; leave no core dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_FSIZE, (memory, memory))


def fence(rights: int, allowed: Iterable[str | Path]) -> None:
    """Give up `rights` on files for good, but for those under `allowed`, and all TCP, and signals to other processes.

    For what safe mode and the checks below do not hold. Landlock is in Linux from 5.19 on as it is needed here; where
    there is none, nothing happens.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    create, add_rule, restrict = 444, 445, 446
    version = libc.syscall(create, None, 0, 1)
    if version < 2:
        return
    # Every ruleset forbids moves between folders that does not speak of them.
    rights = (rights | _MOVE) & (1 << 12 + min(version, 3)) - 1
    ruleset = struct.pack("QQQ", rights, 0b11, 0b10)[: 24 if version >= 6 else 16 if version >= 4 else 8]
    rules = libc.syscall(create, ruleset, len(ruleset), 0)
    for path in allowed:
        with contextlib.suppress(OSError):
            place = os.open(path, os.O_PATH)
            given = rights if Path(path).is_dir() else rights & _OF_FILES
            libc.syscall(add_rule, rules, 1, struct.pack("=Qi", given, place), 0)
            os.close(place)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS, without which only root may
    libc.syscall(restrict, rules, 0)
    os.close(rules)


def readable(source: Path, out: Path) -> list[str | Path]:
    """What the conversion has to read: the model, and the Python that runs. A model's files may be links."""
    # Unlike Path.resolve(), realpath() lets links that lead in a circle be.
    links = [os.path.realpath(path) for path in source.rglob("*") if path.is_symlink()] if source.is_dir() else []
    return [source, *links, out, sys.prefix, sys.base_prefix, *sys.path, *_SYSTEM, *_SYSTEM_FACTS]

"""A process started from an unpacked image much as an engine would, by the means of Debian's util-linux.

It is process 1 of a process namespace, in the image's files, with a read-only root and a temporary /tmp, as the image's
user, without capabilities and without a way to gain any. The network is the machine's own.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from container import CheckError
from container.images import Config, tail

EXIT_SECONDS = 10.0
DEVICES = "null zero full random urandom"
# Arguments: root, user:group, bind mounts as SOURCE:TARGET:ro|rw (one a line), then the command.
ENTER = f"""
set -eu
root=$1 owner=$2 binds=$3; shift 3
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777,size=256m,nosuid,nodev tmpfs "$root/tmp"
mount -t tmpfs -o mode=0755,size=64k tmpfs "$root/dev"
for name in {DEVICES}; do : > "$root/dev/$name"; mount --bind "/dev/$name" "$root/dev/$name"; done
mkdir -m 1777 "$root/dev/shm"
mount -t tmpfs -o mode=1777,size=64m,nosuid,nodev tmpfs "$root/dev/shm"
echo "$binds" | while IFS=: read -r source target mode; do
  [ -n "$source" ] || continue
  mount --bind "$source" "$root$target"
  mount -o "remount,bind,$mode" "$root$target"
done
exec setpriv --no-new-privs --inh-caps=-all --ambient-caps=-all --bounding-set=-all,+sys_chroot,+setuid,+setgid \
  chroot --userspec="$owner" --groups= "$root" /usr/bin/env --ignore-environment "$@"
"""
NAMESPACES = ["unshare", "--mount", "--propagation=private", "--ipc", "--uts", "--pid", "--fork"]


@dataclass(frozen=True)
class Bind:
    source: Path
    target: str
    mode: str = "ro"

    def __str__(self) -> str:
        return f"{self.source}:{self.target}:{self.mode}"


def _environment(config: Config, changes: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in (config.environment | dict(changes)).items()]


def run_inside(root: Path, config: Config, command: list[str], changes: Mapping[str, str]) -> int:
    """Run a short command in an image's files as its user, and give its exit code."""
    enter = ["chroot", f"--userspec={config.user}", "--groups=", str(root), "/usr/bin/env", "--ignore-environment"]
    done = subprocess.run(
        [*enter, *_environment(config, changes), *command], capture_output=True, check=False, timeout=120
    )
    return done.returncode


def _status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _parents() -> dict[int, int]:
    """Process -> parent, for every process of this machine that can be seen at the moment."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    return parents


def _offspring(pid: int) -> list[int]:
    parents = _parents()
    found = [pid]
    for member in found:
        found += [child for child, parent in parents.items() if parent == member]
    return found[1:]


def _proportional_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


@dataclass
class Sandbox:
    """One start of an image's own command. `server` is process 1 inside."""

    root: Path
    config: Config
    log: Path
    changes: Mapping[str, str]
    binds: list[Bind] = field(default_factory=list)
    peak_bytes: int = 0
    started: float = 0.0
    _outer: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binds = "\n".join(map(str, self.binds))
        command = [*NAMESPACES, "sh", "-c", ENTER, "sh", str(self.root), self.config.user, binds]
        command += [*_environment(self.config, self.changes), *self.config.command]
        with self.log.open("wb") as output:
            self.started = time.monotonic()
            self._outer = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    @property
    def outer(self) -> subprocess.Popen[bytes]:
        if self._outer is None:
            raise RuntimeError("not started")
        return self._outer

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def alive(self) -> bool:
        return self.outer.poll() is None

    def said(self) -> str:
        return tail(self.log)

    def processes(self) -> list[int]:
        """Process 1 inside, then its offspring, by the machine's numbers."""
        return _offspring(self.outer.pid)

    def memory(self) -> int:
        """Proportional memory of all processes inside; `peak_bytes` keeps the largest that was asked for."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):
                total += _proportional_bytes(pid)
        self.peak_bytes = max(self.peak_bytes, total)
        return total

    def inspect(self) -> None:
        """Every process inside runs as the image's user, without capabilities; none has TensorFlow mapped."""
        pids = self.processes()
        if not pids:
            raise CheckError(f"No process of the service is left.\n{self.said()}")
        for pid in pids:
            status = _status(pid)
            uids = set(status["Uid"].split())
            if uids != {str(self.config.uid)} or self.config.uid <= 0:
                raise CheckError(f"Process {pid} ({status['Name']}) runs with the user ids {uids}: {self.config.user}?")
            if int(status["CapEff"], 16) != 0:
                raise CheckError(f"Process {pid} ({status['Name']}) has the capabilities {status['CapEff']}.")
            if "tensorflow" in Path(f"/proc/{pid}/maps").read_text():
                raise CheckError(f"Process {pid} ({status['Name']}) has TensorFlow in it while it serves.")
        if _status(pids[0])["NSpid"].split()[-1] != "1":
            raise CheckError("The service is not process 1 of its container: something stands between it and SIGTERM.")

    def terminate(self) -> float:
        """SIGTERM to process 1, as an engine sends it; seconds until it has ended, with exit code 0."""
        os.kill(self.processes()[0], signal.SIGTERM)
        begin = time.monotonic()
        try:
            code = self.outer.wait(timeout=EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            raise CheckError(f"{EXIT_SECONDS:.0f} s after SIGTERM the service still ran.\n{self.said()}") from None
        if code != 0:
            raise CheckError(f"After SIGTERM the service exited with {code}, expected 0.\n{self.said()}")
        return time.monotonic() - begin

    def kill(self) -> None:
        """End whatever is left. Process 1 ends last in its namespace, and `unshare` waits for it."""
        if self._outer is not None and self._outer.poll() is None:
            for pid in self.processes()[:1] or [self._outer.pid]:
                os.kill(pid, signal.SIGKILL)
            self._outer.wait()

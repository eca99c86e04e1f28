"""Set up .venv-clients: the clients of other servers that tests/clients runs, and Triton's load tool.

They are pinned with hashes in requirements/clients.lock and requirements/perf-analyzer.txt.
"""

import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from zipfile import ZipFile

from elf import Program

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv-clients"
REQUIREMENTS = ROOT / "requirements"
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")

# What it needs for inputs in base64 and for GPUs; Debian's package of the one and CUDA are not asked for.
_SELDOM_NEEDED = ("libb64.so.0d", "libcudart.so.12")
_THEIR_FUNCTIONS = ("base64_", "cuda")


def install(folder: Path) -> None:
    """Make the environment anew, of what the lock names and no more."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
    lock = REQUIREMENTS / "clients.lock"
    command: list[str | Path] = [folder / "bin" / "python", *PIP, "install", "--require-hashes", "--no-deps"]
    subprocess.run([*command, "--no-compile", "--requirement", lock], check=True)


def unpack_perf_analyzer(place: Path) -> None:
    """Take the tool out of its wheel, and let it start where there are neither GPUs nor libb64."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *PIP, "download", "--no-deps", "--require-hashes", "--only-binary=:all:"]
        command += ["--platform=manylinux1_x86_64", "--dest", folder]
        subprocess.run([*command, "--requirement", str(REQUIREMENTS / "perf-analyzer.txt")], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with ZipFile(wheel) as archive:
            (member,) = (name for name in archive.namelist() if name.endswith("/bin/perf_analyzer"))
            program = Program(archive.read(member))
    place.write_bytes(program.forgo(_SELDOM_NEEDED, _THEIR_FUNCTIONS))
    place.chmod(0o755)
    subprocess.run([place, "--version"], check=True, capture_output=True)


def main() -> None:
    try:
        install(FOLDER)
        if (platform.system(), platform.machine()) == ("Linux", "x86_64"):
            unpack_perf_analyzer(FOLDER / "bin" / "perf_analyzer")
    except (subprocess.CalledProcessError, OSError) as error:
        shutil.rmtree(FOLDER, ignore_errors=True)
        sys.exit(f"{FOLDER.name} could not be set up: {error}")


if __name__ == "__main__":
    main()

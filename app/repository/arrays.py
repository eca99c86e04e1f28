"""Named arrays in one `.npz` file, strings among them, without pickles."""

from pathlib import Path

import numpy as np

from app.tensors import Array


def save_arrays(path: Path, arrays: dict[str, Array]) -> None:
    """Write arrays; those of `bytes` objects as NumPy's fixed-width strings, which lose zero bytes at their ends."""
    plain = {name: array.astype(np.bytes_) if array.dtype == object else array for name, array in arrays.items()}
    np.savez(path, allow_pickle=False, **plain)


def load_arrays(path: Path) -> dict[str, Array]:
    """Read what `save_arrays` wrote, strings as `bytes` objects.

    Raises:
        ValueError, OSError: it is no such file.
    """
    with np.load(path, allow_pickle=False) as found:
        return {name: _plain(found[name]) for name in found.files}


def _plain(array: Array) -> Array:
    if array.dtype.kind == "U":
        array = np.char.encode(array, "utf-8")
    return array.astype(object) if array.dtype.kind == "S" else array

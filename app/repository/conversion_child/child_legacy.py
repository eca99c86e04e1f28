"""HDF5 files of Keras 2, in whose layers are words that Keras 3 does not know, or takes for something else."""

import json
import shutil
from pathlib import Path
from typing import Any

_WITHOUT_MEANING: dict[str, tuple[str, Any]] = {
    "LSTM": ("time_major", False),
    "GRU": ("time_major", False),
    "SimpleRNN": ("time_major", False),
    "RNN": ("time_major", False),
    "ConvLSTM2D": ("time_major", False),
    "DepthwiseConv2D": ("groups", 1),
    "DepthwiseConv1D": ("groups", 1),
    "Conv2DTranspose": ("groups", 1),
    "Conv1DTranspose": ("groups", 1),
    "SeparableConv2D": ("groups", 1),
    "SeparableConv1D": ("groups", 1),
}
"""By layer, an argument that Keras 3 dropped and the value by which it said nothing."""


def mend_h5(source: Path, place: Path) -> bool:
    """Copy a file to `place`, said as Keras 3 says it; False, and no copy, if it does so already."""
    import h5py

    with h5py.File(source, "r") as file:
        config = json.loads(file.attrs["model_config"])
    if not _mend(config):
        return False
    shutil.copyfile(source, place)
    with h5py.File(place, "r+") as file:
        # Anew: an attribute that is changed in place keeps the length it had.
        del file.attrs["model_config"]
        file.attrs["model_config"] = json.dumps(config).encode()
    return True


def _mend(config: Any) -> bool:
    """Take out what means nothing, and say what inputs are; whether there was anything."""
    found, waiting = False, [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            word, value = _WITHOUT_MEANING.get(str(item.get("class_name")), ("", None))
            layer = item.get("config")
            if isinstance(layer, dict) and word in layer and layer[word] == value:
                del layer[word]
                found = True
            if item.get("class_name") == "Sequential":
                found |= _give_input(layer if isinstance(layer, list) else (layer or {}).get("layers") or [])
    return found


def _give_input(layers: list[Any]) -> bool:
    """Say by a layer what the first one takes. Of its shape, where it says that itself, Keras 3 would make a record's.

    Also its dtype: Keras 2 fed an embedding floats unless it was told otherwise.
    """
    first = layers[0] if layers else {}
    config = first.get("config") or {}
    if first.get("class_name") == "InputLayer" or "batch_input_shape" not in config:
        return False
    shape, dtype = config.pop("batch_input_shape"), config.get("dtype")
    given = {"batch_input_shape": shape, "dtype": dtype if isinstance(dtype, str) else "float32"}
    name = f"{config.get('name', 'layer')}_input"
    layers.insert(0, {"class_name": "InputLayer", "config": {**given, "name": name}})
    return True

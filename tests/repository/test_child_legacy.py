"""HDF5 files of Keras 2, whose layers have words that Keras 3 does not know."""

import json
from pathlib import Path
from typing import Any

import h5py
import pytest

from child_legacy import mend_h5


def h5_file(path: Path, *layers: dict[str, Any]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": list(layers)}})
        file["model_weights/kernel"] = [1.0, 2.0]
    return path


def layer(name: str, /, **config: Any) -> dict[str, Any]:
    return {"class_name": name, "config": config}


def mended(path: Path) -> list[dict[str, Any]]:
    with h5py.File(path, "r") as file:
        assert list(file["model_weights/kernel"]) == [1.0, 2.0]
        layers: list[dict[str, Any]] = json.loads(file.attrs["model_config"])["config"]["layers"]
    return layers


def test_a_word_that_means_nothing_is_taken_out_of_a_copy(tmp_path: Path) -> None:
    source = h5_file(tmp_path / "old.h5", layer("LSTM", units=3, time_major=False))
    before = source.read_bytes()

    assert mend_h5(source, tmp_path / "new.h5")
    assert mended(tmp_path / "new.h5") == [layer("LSTM", units=3)]
    assert source.read_bytes() == before


def test_it_is_found_in_layers_within_layers(tmp_path: Path) -> None:
    inner = layer("GRU", units=3, time_major=False)
    source = h5_file(tmp_path / "old.h5", layer("Bidirectional", layer=inner), layer("DepthwiseConv2D", groups=1))

    assert mend_h5(source, tmp_path / "new.h5")
    assert mended(tmp_path / "new.h5") == [
        layer("Bidirectional", layer=layer("GRU", units=3)),
        layer("DepthwiseConv2D"),
    ]


@pytest.mark.parametrize(
    "kept", [layer("LSTM", time_major=True), layer("DepthwiseConv2D", groups=2), layer("Dense", time_major=False)]
)
def test_a_word_with_a_meaning_is_left_for_keras_to_refuse(tmp_path: Path, kept: dict[str, Any]) -> None:
    source = h5_file(tmp_path / "old.h5", kept)

    assert not mend_h5(source, tmp_path / "new.h5")
    assert not (tmp_path / "new.h5").exists()


def test_a_read_only_file_is_mended_too(tmp_path: Path) -> None:
    source = h5_file(tmp_path / "old.h5", layer("LSTM", time_major=False))
    source.chmod(0o444)

    assert mend_h5(source, tmp_path / "new.h5")


def sequential(first: dict[str, Any]) -> dict[str, Any]:
    return {"class_name": "Sequential", "config": {"layers": [first, layer("Dense", units=1)]}}


@pytest.mark.parametrize(("dtype", "told"), [("int32", "int32"), (None, "float32"), ({"name": "x"}, "float32")])
def test_a_sequence_of_layers_without_one_for_its_input_is_given_it(tmp_path: Path, dtype: Any, told: str) -> None:
    first = layer("LSTM", name="lstm", units=3, batch_input_shape=[None, 5, 2], dtype=dtype)
    source = h5_file(tmp_path / "old.h5", first, layer("Dense", units=1))

    assert mend_h5(source, tmp_path / "new.h5")
    assert mended(tmp_path / "new.h5") == [
        layer("InputLayer", batch_input_shape=[None, 5, 2], dtype=told, name="lstm_input"),
        layer("LSTM", name="lstm", units=3, dtype=dtype),
        layer("Dense", units=1),
    ]


def test_a_sequence_within_layers_is_given_it_too(tmp_path: Path) -> None:
    inner = sequential(layer("Dense", name="dense", units=2, batch_input_shape=[None, 4]))
    source = h5_file(tmp_path / "old.h5", layer("InputLayer", batch_input_shape=[None, 4]), inner)

    assert mend_h5(source, tmp_path / "new.h5")
    assert [each["class_name"] for each in mended(tmp_path / "new.h5")[1]["config"]["layers"]] == [
        *("InputLayer", "Dense", "Dense")
    ]


def test_a_sequence_that_has_a_layer_for_its_input_is_left_alone(tmp_path: Path) -> None:
    source = h5_file(tmp_path / "old.h5", layer("InputLayer", batch_input_shape=[None, 4]), layer("Dense", units=2))

    assert not mend_h5(source, tmp_path / "new.h5")

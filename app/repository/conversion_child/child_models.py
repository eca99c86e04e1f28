"""Models as TensorFlow runs them: a SavedModel, and a Keras file, which becomes one."""

import zipfile
from pathlib import Path
from typing import Any

from child_checks import check_ops
from child_reasons import Refused


class Model:
    """A model as TensorFlow runs it: named tensors in, named tensors out."""

    keras_version: str | None = None
    saved: Path
    signature: str
    inputs: dict[str, Any]
    """`tf.TensorSpec` by name."""
    outputs: list[str]
    output_shapes: list[list[int | None]]

    def call(self, tensors: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def predict(self, tensors: dict[str, Any]) -> object:
        """`model.predict()`, for the timing only; where there is none, the call."""
        return self.call(tensors)

    @property
    def batching(self) -> str:
        """`free`, `one` or `none`: as Litepool's signatures class the leading dimensions."""
        shapes = [spec.shape.as_list() for spec in self.inputs.values()] + self.output_shapes
        leading = {shape[0] if shape else 0 for shape in shapes}
        return "free" if leading == {None} else "one" if leading == {1} else "none"


class SavedModel(Model):
    """A SavedModel folder; its `serving_default` signature, or the only one."""

    def __init__(self, tf: Any, source: Path) -> None:
        self._tf = tf
        self.saved = source
        check_ops(source)
        self._loaded = tf.saved_model.load(str(source))
        names = [name for name in self._loaded.signatures if not name.startswith("__")]
        if "serving_default" not in names and len(names) != 1:
            found = f"the signatures {', '.join(sorted(names))}" if names else "no signature"
            raise Refused(f"the SavedModel has {found}: export it with one that is named serving_default")
        self.signature = "serving_default" if "serving_default" in names else names[0]
        self._function = self._loaded.signatures[self.signature]
        self.inputs = dict(self._function.structured_input_signature[1])
        self.outputs = list(self._function.structured_outputs)
        self.output_shapes = [shape_of(self._function.structured_outputs[name].shape) for name in self.outputs]

    def call(self, tensors: dict[str, Any]) -> dict[str, Any]:
        result = self._function(**{name: self._tf.constant(value) for name, value in tensors.items()})
        return {name: result[name].numpy() for name in self.outputs}


def shape_of(shape: Any) -> list[int | None]:
    return shape.as_list() if shape.rank is not None else []


class KerasModel(Model):
    """A `.keras` or `.h5` file, loaded in safe mode and exported with the names of its input and output layers."""

    def __init__(self, tf: Any, source: Path, out: Path) -> None:
        import keras

        self._tf = tf
        self._keras = keras
        self.keras_version = keras.__version__
        # By a name of ours, because Keras wants the suffix in small letters, and may unpack a large file beside it.
        link = out / ("model.keras" if zipfile.is_zipfile(source) else "model.h5")
        link.symlink_to(source)
        self._model = keras.saving.load_model(link, compile=False, safe_mode=True)
        exported = out / "export"
        self._model.export(str(exported), verbose=False, input_signature=self._own_batch())
        loaded = tf.saved_model.load(str(exported))
        function = loaded.signatures["serving_default"]
        self.signature = "serving_default"
        self.inputs = dict(function.structured_input_signature[1])
        self._names = self._output_names(list(function.structured_outputs))
        self.outputs = list(self._names.values())
        self.output_shapes = [shape_of(function.structured_outputs[name].shape) for name in self._names]
        self.saved = exported
        if any(old != new for old, new in self._names.items()):
            self.saved = out / "renamed"
            self._save_renamed(loaded, function)

    def _own_batch(self) -> list[Any] | None:
        """The inputs as the model has them, if Keras' export, which frees the batch, would make it inconvertible.

        TFLite has no recurrent layer over a free batch, but has one over a batch of 1.
        """
        recurrent = [layer for layer in self._model._flatten_layers() if isinstance(layer, self._keras.layers.RNN)]
        loops = any(not layer.unroll for layer in recurrent)
        if not loops or any(tensor.shape[:1] != (1,) for tensor in self._model.inputs):
            return None
        spec = self._keras.InputSpec
        return [
            self._keras.tree.map_structure(
                lambda tensor: spec(dtype=tensor.dtype, shape=tensor.shape, name=tensor.name), self._model.input
            )
        ]

    def _output_names(self, exported: list[str]) -> dict[str, str]:
        """`{name in Keras' export: layer's name}`; Keras calls the outputs of a list `output_0`, `output_1`, ..."""
        numbered = [f"output_{index}" for index in range(len(exported))]
        if sorted(exported) != sorted(numbered):
            return {name: name for name in exported}
        is_sequential = isinstance(self._model, self._keras.Sequential)
        layers = [self._model.layers[-1].name] if is_sequential else list(self._model.output_names)
        return dict(zip(numbered, layers if len(set(layers)) == len(numbered) else numbered, strict=True))

    def _save_renamed(self, loaded: Any, function: Any) -> None:
        def serve(**tensors: Any) -> dict[str, Any]:
            result = function(**tensors)
            return {new: result[old] for old, new in self._names.items()}

        concrete = self._tf.function(serve).get_concrete_function(**self.inputs)
        self._tf.saved_model.save(loaded, str(self.saved), signatures={self.signature: concrete})

    def _arguments(self, tensors: dict[str, Any]) -> Any:
        """The inputs in the model's own structure, whose keys need not be the inputs' names."""
        if isinstance(self._model, self._keras.Sequential):
            return next(iter(tensors.values()))
        return self._keras.tree.map_structure(lambda tensor: tensors[tensor.name], self._model.input)

    def call(self, tensors: dict[str, Any]) -> dict[str, Any]:
        result = self._model(self._arguments(tensors), training=False)
        if isinstance(result, dict):
            return {name: self._array(result[name]) for name in self.outputs}
        results = list(result) if isinstance(result, (list, tuple)) else [result]
        return {name: self._array(value) for name, value in zip(self.outputs, results, strict=True)}

    def predict(self, tensors: dict[str, Any]) -> object:
        return self._model.predict(self._arguments(tensors), verbose=0)

    def _array(self, tensor: Any) -> Any:
        return self._tf.convert_to_tensor(tensor).numpy()

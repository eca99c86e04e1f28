"""Models as TensorFlow runs them: a SavedModel, and a Keras file, which becomes one."""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from child_checks import check_ops
from child_legacy import mend_h5
from child_reasons import Refused, explain
from child_saved import SavedFolder
from child_signature import Signature, Tensors, called, signature_of
from child_v1 import save_again

DEFAULT = "serving_default"


class Model:
    """A model that TensorFlow has loaded.

    Attributes:
        saved: a SavedModel of it.
        signatures: the default one first.
        aliases: `{another name of a signature: its name}`.
        left_out: `{name of a signature that is not served: why}`.
    """

    keras_version: str | None = None
    trained_in: str | None = None
    """Keras' policy of mixed precision, which was undone."""
    is_v1_again = False
    """Whether TensorFlow 1 wrote it, and `saved` is what `child_v1` made of that."""
    is_v1 = False
    """Whether TensorFlow 1 wrote it, and `saved` is as it was: then `v1_again` gives it by the other road."""

    def __init__(self, tf: Any, saved: Path) -> None:
        self._tf = tf
        self.saved = saved
        self._loaded = tf.saved_model.load(str(saved))
        functions = {name: each for name, each in self._loaded.signatures.items() if not name.startswith("__")}
        if not functions:
            raise Refused(f"the SavedModel has no signature: export it with one that is named {DEFAULT}")
        names = sorted(functions, key=lambda name: (name != DEFAULT, name))
        self.signatures: list[Signature] = []
        self.aliases: dict[str, str] = {}
        self.left_out: dict[str, str] = {}
        for name in names:
            signature = signature_of(tf, name, functions[name])
            if same := next((each.name for each in self.signatures if _same(each, signature)), None):
                self.aliases[name] = same
            else:
                self.signatures.append(signature)
        self.signatures[0].check(tf)
        for signature in self.signatures[1:]:
            try:
                signature.check(tf)
            except Refused as error:
                self.leave_out(signature, str(error))

    @property
    def default(self) -> Signature:
        return self.signatures[0]

    @property
    def stateful(self) -> bool:
        return any(signature.keeps_state for signature in self.signatures)

    def leave_out(self, signature: Signature, reason: str) -> None:
        self.signatures = [each for each in self.signatures if each is not signature]
        self.left_out[signature.name] = reason

    def fresh(self, signature: Signature) -> Callable[[Tensors], Tensors]:
        """TensorFlow's answer by a model that was just loaded."""
        loaded = self._tf.saved_model.load(str(self.saved))
        again = signature_of(self._tf, signature.name, loaded.signatures[signature.name])

        def run(tensors: Tensors) -> Tensors:
            assert loaded  # Its variables live as long as it does.
            return again.run(tensors)

        return run

    def predict(self, tensors: Tensors) -> object:
        """`model.predict()`, for the timing only; where there is none, the call."""
        return self.default.run(tensors)

    def v1_again(self) -> "Model":
        raise NotImplementedError


def _same(one: Signature, other: Signature) -> bool:
    """Whether two signatures are one under two names, as Keras exports its own."""
    functions = called(one.function)
    return bool(functions) and functions == called(other.function) and one.inputs == other.inputs


class SavedModel(Model):
    """A SavedModel folder, as the loader of TensorFlow 2 takes it."""

    def __init__(self, tf: Any, folder: SavedFolder, work: Path) -> None:
        super().__init__(tf, folder.path)
        self.is_v1 = folder.is_v1
        self._folder, self._work = folder, work
        self._again: SavedModelV1 | None = None

    def v1_again(self) -> Model:
        self._again = self._again or SavedModelV1(self._tf, self._folder, self._work)
        return self._again


class SavedModelV1(Model):
    """A SavedModel of TensorFlow 1, frozen and saved again."""

    is_v1_again = True

    def __init__(self, tf: Any, folder: SavedFolder, work: Path) -> None:
        super().__init__(tf, save_again(tf, folder, work / "v1"))


def load_saved_model(tf: Any, source: Path, work: Path) -> Model:
    """A SavedModel, by whichever road TensorFlow takes it.

    Raises:
        Refused: by none, and why.
    """
    folder = SavedFolder(source, check_ops(source), work)
    if folder.is_v1 and folder.has_local_variables:
        return SavedModelV1(tf, folder, work)
    try:
        return SavedModel(tf, folder, work)
    except Exception as error:
        if not folder.is_v1 or isinstance(error, Refused):
            raise
        try:
            return SavedModelV1(tf, folder, work)
        except Exception as second:
            both = dict.fromkeys([explain(error), explain(second)])
            raise Refused(f"TensorFlow does not load it: {'; nor in a session: '.join(both)}") from second


def _widen(config: Any) -> str | None:
    """Set the layers' policies of mixed precision to float32: the name of one; None if there was none."""
    found, waiting = None, [config]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list | tuple):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            policy = item.get("config")
            if item.get("class_name") != "DTypePolicy" or not isinstance(policy, dict):
                continue
            if str(policy.get("name")).startswith("mixed_"):
                found, policy["name"] = policy["name"], "float32"
    return found


class KerasModel(Model):
    """A `.keras` or `.h5` file, loaded in safe mode and exported with the names of its input and output layers."""

    def __init__(self, tf: Any, source: Path, work: Path) -> None:
        import keras

        self._tf = tf
        self._keras = keras
        self.keras_version = keras.__version__
        # By a name of ours, because Keras wants the suffix in small letters, and may unpack a large file beside it.
        link = work / ("model.keras" if zipfile.is_zipfile(source) else "model.h5")
        if link.suffix == ".keras" or not mend_h5(source, link):
            link.symlink_to(source)
        self._model = keras.saving.load_model(link, compile=False, safe_mode=True)
        self._compute_in_float32()
        self._drop_dropout()
        super().__init__(tf, self._export(work / "exported", self._own_batch()))
        # Keras exports its one signature by two names; the file has none.
        self.aliases = {}
        self._put_in_order(self.default)
        if not self.stateful:
            self.default.run = self._call

    def traced(self, shapes: dict[str, list[int]], place: Path) -> Path:
        """A SavedModel of the model for inputs of these shapes and no others."""
        only = next(iter(shapes.values()))
        return self._export(place, self._specs(lambda tensor: shapes.get(tensor.name, only)))

    def _export(self, place: Path, specs: list[Any] | None) -> Path:
        """A SavedModel whose signature has the names of the layers."""
        self._model.export(str(place), verbose=False, input_signature=specs)
        loaded = self._tf.saved_model.load(str(place))
        function = loaded.signatures[DEFAULT]
        self._names = self._output_names(list(function.structured_outputs))
        if all(old == new for old, new in self._names.items()):
            return place
        renamed = place.with_name(f"{place.name}-renamed")

        def serve(**tensors: Any) -> dict[str, Any]:
            result = function(**tensors)
            return {new: result[old] for old, new in self._names.items()}

        concrete = self._tf.function(serve).get_concrete_function(**dict(function.structured_input_signature[1]))
        self._tf.saved_model.save(loaded, str(renamed), signatures={DEFAULT: concrete})
        shutil.rmtree(place)
        return renamed

    def _compute_in_float32(self) -> None:
        """Undo mixed precision, by which layers compute in fewer bits than their variables have.

        It hastens training on other machines. TFLite has no such operations, and 32 bits answer at least as well.
        """
        config = self._keras.saving.serialize_keras_object(self._model)
        self.trained_in = _widen(config)
        if self.trained_in is not None:
            weights = self._model.get_weights()
            self._model = self._keras.saving.deserialize_keras_object(config, safe_mode=True)
            self._model.set_weights(weights)

    def _drop_dropout(self) -> None:
        """Take out what recurrent cells drop in training: Keras leaves the state of chance in the exported graph."""
        for layer in self._model._flatten_layers():
            cell = getattr(layer, "cell", None)
            if cell is None or any(node.arguments.kwargs.get("training") for node in layer._inbound_nodes):
                continue
            for each in getattr(cell, "cells", [cell]):
                for rate in ("dropout", "recurrent_dropout"):
                    if getattr(each, rate, 0.0):
                        setattr(each, rate, 0.0)

    def _put_in_order(self, signature: Signature) -> None:
        """Give the outputs the model's own order, in which it answers; a SavedModel sorts them."""
        shapes = dict(zip(signature.outputs, signature.output_shapes, strict=True))
        signature.outputs = list(self._names.values())
        signature.output_shapes = [shapes[name] for name in signature.outputs]

    def _own_batch(self) -> list[Any] | None:
        """The inputs as the model has them, if their batch is the size of variables that it keeps; else Keras' export
        frees it."""
        if not any(getattr(layer, "stateful", False) for layer in self._model._flatten_layers()):
            return None
        return self._specs(lambda tensor: tensor.shape)

    def _specs(self, shape_of: Callable[[Any], Any]) -> list[Any]:
        """The inputs for Keras' export."""
        spec = self._keras.InputSpec
        return [
            self._keras.tree.map_structure(
                lambda tensor: spec(dtype=tensor.dtype, shape=tuple(shape_of(tensor)), name=tensor.name),
                self._model.input,
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

    def _arguments(self, tensors: Tensors) -> Any:
        """The inputs in the model's own structure, whose keys need not be the inputs' names."""
        given = {name: self._tf.constant(value) for name, value in tensors.items()}
        if isinstance(self._model, self._keras.Sequential):
            return next(iter(given.values()))
        return self._keras.tree.map_structure(lambda tensor: given[tensor.name], self._model.input)

    def _call(self, tensors: Tensors) -> Tensors:
        result = self._model(self._arguments(tensors), training=False)
        outputs = self.default.outputs
        if isinstance(result, dict):
            return {name: self._array(result[name]) for name in outputs}
        results = list(result) if isinstance(result, (list, tuple)) else [result]
        return {name: self._array(value) for name, value in zip(outputs, results, strict=True)}

    def predict(self, tensors: Tensors) -> object:
        return self._model.predict(self._arguments(tensors), verbose=0)

    def _array(self, tensor: Any) -> Any:
        return self._tf.convert_to_tensor(tensor).numpy()

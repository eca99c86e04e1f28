"""TensorFlow Serving's examples: records as features by name, and what `classify` and `regress` answer of them.

There each example goes as a serialized `tf.Example` into a graph that takes it apart. A signature here that does so too
(one input of strings, called as TensorFlow calls it) is given the same. All others get features by their inputs' names:
of each as many values as a record of that input has. Features that no input is called like are passed over.

Source: `servables/tensorflow/classifier.cc` and `regressor.cc` of tensorflow/serving, for which outputs are meant;
example.proto and feature.proto of tensorflow/core/example.
"""

import math
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from app.errors import InvalidArgument
from app.protocols.call import SHOWN, Call, Form, Identity
from app.tensors import FREE, STRING, Array, Batching, Shape, Signature, TensorSpec, dtype_name, show_shape

_SERIALIZED = ("inputs", "examples")
"""What TensorFlow calls an input of serialized examples, in signatures of this kind and in an estimator's others."""


_MOST_SHARED = 1 << 26
"""Bytes that a context may come to, being in each example: a small body could ask for any number of them."""


class Feature(NamedTuple):
    """Values of one kind: `float`, `int64` or `bytes`."""

    kind: str
    values: Sequence[Any] | Array


Features = Mapping[str, Feature]


class Examples:
    """Makes a signature's inputs of examples.

    Attributes:
        why_not: why there is no way to; empty where there is.
        serialized: whether examples are wanted as bytes.
    """

    def __init__(self, signature: Signature) -> None:
        self._signature = signature
        (first, *others) = signature.inputs
        record = signature.record_shape(first)
        self.serialized = not others and first.dtype == STRING and not record and first.name in _SERIALIZED
        self.why_not = ""
        if signature.batching is Batching.NONE:
            self.why_not = "its tensors have no batch dimension"
        for spec in signature.inputs:
            if spec.dtype.kind == "c":
                self.why_not = f"its input {spec.name!r} takes complex numbers, which no feature holds"
            elif signature.record_shape(spec).count(FREE) > 1:
                shape = show_shape(signature.tensor_shape(spec))
                self.why_not = (
                    f"its input {spec.name!r} has the shape {shape}, which a flat list of values does not fill"
                )

    def check_shared(self, context: Features, count: int) -> None:
        """Refuse a context that would come to too much in so many examples.

        Raises:
            InvalidArgument
        """
        for spec in self._signature.inputs:
            if (feature := context.get(spec.name)) is not None:
                size = len(feature.values) * spec.dtype.itemsize
                check_shared_bytes(size + sum(map(len, feature.values if feature.kind == "bytes" else ())), count)

    def of_bytes(self, examples: Sequence[bytes]) -> Call:
        """The call of serialized examples."""
        strings = np.empty(len(examples), STRING)
        strings[:] = examples
        return Call((strings,), len(examples), Form.INSTANCES)

    def of_features(self, examples: Sequence[Features]) -> Call:
        """The call of examples taken apart.

        Raises:
            InvalidArgument: a feature is missing, or does not fit its input.
        """
        arrays = [self._column(examples, spec) for spec in self._signature.inputs]
        return Call(tuple(arrays), len(examples), Form.INSTANCES)

    def _column(self, examples: Sequence[Features], spec: TensorSpec) -> Array:
        shape = self._signature.record_shape(spec)
        size = math.prod(shape) if FREE not in shape else None
        rows = []
        for index, example in enumerate(examples):
            feature = example.get(spec.name)
            if feature is None:
                have = ", ".join(repr(name[:SHOWN]) for name in list(example)[:20])
                raise InvalidArgument(
                    f"Feature: {spec.name} (data type: {dtype_name(spec.dtype)}) is required but could not be found: "
                    f"example {index} has {have or 'no features'}"
                )
            array = _values(feature, spec, index)
            if size is None:
                # The first example decides a free dimension for all.
                rest = -math.prod(shape)
                size = len(array)
                if not size or size % rest:
                    raise _wrong_size(spec, index, size, shape)
                shape = tuple(size // rest if part == FREE else part for part in shape)
            if len(array) != size:
                raise _wrong_size(spec, index, len(array), shape)
            rows.append(array)
        return np.stack(rows).reshape(len(rows), *shape)


def check_shared_bytes(size: int, count: int) -> None:
    """Refuse a context of so many bytes for so many examples.

    Raises:
        InvalidArgument
    """
    if size * count > _MOST_SHARED:
        raise InvalidArgument(
            f"the context has {size} bytes for each of {count} examples: expected {_MOST_SHARED} at most in all of "
            "them; send fewer examples at a time"
        )


def together(own: dict[str, Feature], context: dict[str, Feature]) -> Features:
    """An example's features: its own, and of the context those of other names. Nothing of the context is copied."""
    return ChainMap(own, context) if context else own


def _wrong_size(spec: TensorSpec, index: int, found: int, shape: Shape) -> InvalidArgument:
    return InvalidArgument(
        f"Key: {spec.name}, Index: {index}.  Number of {dtype_name(spec.dtype)} values != expected.  values size: "
        f"{found} but output shape: {show_shape(shape)}"
    )


def _values(feature: Feature, spec: TensorSpec, index: int) -> Array:
    """A feature's values in an input's dtype, flat."""
    kind, values = feature
    wanted = {"O": ("bytes",), "f": ("float", "int64")}.get(spec.dtype.kind, ("int64",))
    if kind not in wanted and len(values):
        raise InvalidArgument(
            f"Key: {spec.name}, Index: {index}.  Data types don't match. Data type: {kind} but expected type: "
            f"{' or '.join(wanted)}, for the {dtype_name(spec.dtype)} input"
        )
    if spec.dtype == STRING:
        strings = np.empty(len(values), STRING)
        strings[:] = values
        return strings
    numbers: Array = np.asarray(values, np.float64 if kind == "float" else np.int64)
    if spec.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return numbers.astype(spec.dtype)
    limits = (0, 1) if spec.dtype.kind == "b" else (int(np.iinfo(spec.dtype).min), int(np.iinfo(spec.dtype).max))
    if len(numbers) and not (limits[0] <= int(numbers.min()) and int(numbers.max()) <= limits[1]):
        worst = numbers.min() if int(numbers.min()) < limits[0] else numbers.max()
        raise InvalidArgument(
            f"Key: {spec.name}, Index: {index}.  {worst} is out of range for {spec.dtype.name}, {limits[0]} to "
            f"{limits[1]}"
        )
    return numbers.astype(spec.dtype)


class Scores:
    """Finds in a signature's outputs what `classify` answers: classes with their scores, for each record.

    Attributes:
        why_not: why there are none; empty where there are.
    """

    def __init__(self, identity: Identity, signature: Signature) -> None:
        names = [spec.name for spec in signature.outputs]
        ranked = [spec for spec in signature.outputs if len(signature.tensor_shape(spec)) == 2]
        scores = _only(ranked, "f", "scores")
        classes = _only(ranked, "O", "classes")
        self.why_not = ""
        if scores is None and classes is None:
            found = ", ".join(f"{spec.name!r} {show_shape(signature.tensor_shape(spec))}" for spec in signature.outputs)
            self.why_not = (
                "Expected classification signature outputs to be one of classes, scores: expected one output of floats "
                f"of shape [batch_size, num_classes], or one called scores, and perhaps one of strings; found {found}"
            )
        self._scores = None if scores is None else names.index(scores.name)
        self._classes = None if classes is None else names.index(classes.name)
        self._labels = [label.encode() for label in identity.labels.get(scores.name, [])] if scores is not None else []

    def of(self, outputs: Sequence[Array]) -> tuple[list[list[bytes]], Array]:
        """For each record its classes' labels, as UTF-8, and their scores, float32 `[rows, classes]`.

        Without a word from the model, or from its owner, a class is called by its number.
        """
        if self._scores is not None:
            scores = _to_float32(outputs[self._scores])
        else:
            scores = np.zeros(outputs[self._classes or 0].shape, np.float32)
        rows, count = scores.shape
        if self._classes is not None:
            found = outputs[self._classes]
            if found.shape != scores.shape:
                raise InvalidArgument(
                    f"the model's answer has classes of shape {show_shape(found.shape)} and scores of shape "
                    f"{show_shape(scores.shape)}: expected them alike"
                )
            return [[_utf8(label) for label in row] for row in found.tolist()], scores
        labels = self._labels[:count]
        labels += [b"%d" % index for index in range(len(labels), count)]
        return [labels] * rows, scores


class Values:
    """Finds in a signature's outputs what `regress` answers: one number for each record.

    Attributes:
        why_not: why there is none; empty where there is.
    """

    def __init__(self, signature: Signature) -> None:
        fitting = [spec for spec in signature.outputs if signature.tensor_shape(spec)[1:] in ((), (1,), (FREE,))]
        found = _only(fitting, "f", "outputs")
        self.why_not = ""
        if found is None:
            have = ", ".join(f"{spec.name!r} {show_shape(signature.tensor_shape(spec))}" for spec in signature.outputs)
            self.why_not = (
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] for one output of floats, "
                f"or for one called outputs; found {have}"
            )
        self._place = 0 if found is None else signature.outputs.index(found)

    def of(self, outputs: Sequence[Array]) -> Array:
        """Float32 `[rows]`."""
        found = outputs[self._place]
        if found.size != len(found):
            raise InvalidArgument(
                "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got "
                f"{show_shape(found.shape)}"
            )
        return _to_float32(found.reshape(-1))


def _to_float32(numbers: Array) -> Array:
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32, copy=False)


def _only(specs: Sequence[TensorSpec], kind: str, name: str) -> TensorSpec | None:
    """Of the tensors of a kind the one of that name, or the only one."""
    found = [spec for spec in specs if spec.dtype.kind == kind]
    named = [spec for spec in found if spec.name == name]
    if named:
        return named[0]
    return found[0] if len(found) == 1 else None


def _utf8(label: bytes) -> bytes:
    return label.decode("utf-8", "replace").encode()

"""Makes the models that the tests of TensorFlow's process run. A program of its own, for it imports TensorFlow.

    python engine_models.py FOLDER

In FOLDER/<name> lies a SavedModel.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

DTYPES = (
    *("bool", "float16", "float32", "float64", "complex64", "complex128", "string"),
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
)
COUNTER = tf.TensorSpec([None], tf.float32, name="x")

Tensors = dict[str, Any]


def main(folder: Path) -> None:
    save(folder / "words", words)
    save(folder / "dense", dense)
    save(folder / "moody", moody)
    save(folder / "counter", counter)
    save(folder / "dtypes", dtypes)
    save(folder / "reads", lambda module: function(lambda x: {"y": x + length_of_a_file()}, COUNTER))
    save(folder / "hoards", hoards)
    save(folder / "rank", lambda module: function(lambda x: {"y": x}, tf.TensorSpec(None, tf.float32, name="x")))
    save(folder / "bfloat", lambda module: function(lambda x: {"y": tf.cast(x, tf.bfloat16)}, COUNTER))
    save(folder / "two", two)


def save(path: Path, make: Any) -> None:
    module = tf.Module()
    tf.saved_model.save(module, str(path), signatures=make(module))


def function(body: Any, *specs: Any) -> Any:
    return tf.function(body, input_signature=specs)


def words(module: Any) -> Any:
    """A lookup in a table, strings made of strings, and an output whose rank the graph does not tell."""
    entries = tf.lookup.KeyValueTensorInitializer(["yes", "no"], tf.constant([1, 2], tf.int64))
    module.table = tf.lookup.StaticHashTable(entries, -1)

    def read(words: Any) -> Tensors:
        lengths = tf.compat.v1.placeholder_with_default(tf.strings.length(words)[:, None], None)
        return {"ids": module.table.lookup(words), "upper": tf.strings.upper(words), "lengths": lengths}

    return function(read, tf.TensorSpec([None], tf.string, name="words"))


def dense(module: Any) -> Any:
    """Two inputs and two outputs, whose names are in another order than their uses."""
    generator = np.random.default_rng(7)
    module.weights = tf.Variable(generator.standard_normal((3, 4)), dtype=tf.float32)
    return function(
        lambda z, a: {"y": tf.nn.relu(z @ module.weights) + a, "b": tf.reduce_sum(z, axis=1)},
        tf.TensorSpec([None, 3], tf.float32, name="z"),
        tf.TensorSpec([None, 1], tf.float32, name="a"),
    )


def moody(module: Any) -> Any:
    """A lookup that fails beyond its end, and kills the process far beyond it."""

    def die() -> Any:
        with tf.control_dependencies([tf.raw_ops.Abort(error_msg="this is the end")]):
            return tf.constant(0)

    def look(index: Any) -> Tensors:
        nothing = tf.cond(tf.reduce_any(index > 100), die, lambda: tf.constant(0))
        return {"y": tf.gather(tf.constant([1.0, 2.0, 3.0]), index + nothing)}

    return function(look, tf.TensorSpec([None], tf.int32, name="index"))


def counter(module: Any) -> Any:
    """Variables that are added to and set, and that of a random generator."""
    module.count = tf.Variable(10.0)
    module.other = tf.Variable([1.0, 2.0])
    module.generator = tf.random.Generator.from_seed(3)

    def count(x: Any) -> Tensors:
        counted = module.count.assign_add(1.0)
        other = module.other.assign(module.other * 2)
        noise = module.generator.normal(tf.shape(x))
        return {"counted": x + counted, "doubled": x + tf.reduce_sum(other), "noise": noise}

    return function(count, COUNTER)


def dtypes(module: Any) -> Any:
    specs = [tf.TensorSpec([None, 2], name, name=f"{name}_in") for name in DTYPES]
    scalars = [tf.TensorSpec([], name, name=f"{name}_scalar") for name in ("string", "float32", "bool")]

    def echo(*tensors: Any) -> Tensors:
        return {spec.name: tf.identity(tensor) for spec, tensor in zip([*specs, *scalars], tensors, strict=True)}

    return function(echo, *specs, *scalars)


def hoards(module: Any) -> Any:
    module.table = tf.lookup.experimental.MutableHashTable(tf.int64, tf.float32, 0.0)

    def remember(x: Any) -> Tensors:
        with tf.control_dependencies([module.table.insert(tf.zeros_like(x, tf.int64), x)]):
            return {"y": x + module.table.lookup(tf.constant([0], tf.int64))}

    return function(remember, COUNTER)


def two(module: Any) -> Any:
    return {"one": function(lambda x: {"same": x}, COUNTER), "other": function(lambda x: {"negated": -x}, COUNTER)}


def length_of_a_file() -> Any:
    return tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

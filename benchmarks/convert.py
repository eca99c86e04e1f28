"""Writes a model's files into the cache: `python -m benchmarks.convert NAME`. Only this module imports TensorFlow."""

from __future__ import annotations

import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf

from benchmarks.models import CONV, MODELS, VARIANTS, Model

# Filters, stride of the first, how many: about 20 ms for one record on one thread of a server of 2023.
STAGES = ((32, 1, 3), (64, 2, 4), (128, 2, 4), (256, 2, 3))


def build_conv() -> keras.Model:
    keras.utils.set_random_seed(20240229)
    x = keras.Input(CONV.record, name="x")
    hidden = x
    for filters, stride, count in STAGES:
        for index in range(count):
            hidden = keras.layers.Conv2D(
                filters,
                3,
                strides=1 if index else stride,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
            )(hidden)
    pooled = keras.layers.GlobalAveragePooling2D()(hidden)
    # No softmax: with weights that were never trained it would give every record nearly the same answer.
    return keras.Model(x, keras.layers.Dense(CONV.outputs, name="y")(pooled), name="conv")


def write_tflite(model: Model) -> None:
    with tempfile.TemporaryDirectory() as saved:
        keras.models.load_model(model.keras, compile=False).export(saved, verbose=False)
        for variant in VARIANTS:
            converter = tf.lite.TFLiteConverter.from_saved_model(saved)
            if variant == "int8":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            model.tflite(variant).write_bytes(converter.convert())


def main() -> None:
    model = MODELS[sys.argv[1]]
    if model is CONV:
        build_conv().save(model.keras)
    write_tflite(model)


if __name__ == "__main__":
    main()

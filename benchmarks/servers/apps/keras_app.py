"""FastAPI, pydantic and the Keras model itself, called or by `predict`: what most tutorials show."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = keras.models.load_model(os.environ["BENCH_KERAS"], compile=False)
CALL = os.environ["BENCH_CALL"] == "call"


class Vectors(BaseModel):
    instances: list[list[float]]


class Pictures(BaseModel):
    instances: list[list[list[list[float]]]]


class Answer(BaseModel):
    predictions: list[list[float]]


def run(instances: list[Any]) -> Answer:
    batch = np.array(instances, dtype=np.float32)
    outputs = model(batch, training=False).numpy() if CALL else model.predict(batch, verbose=0)
    return Answer(predictions=outputs.tolist())


def predict_vectors(body: Vectors) -> Answer:
    return run(body.instances)


def predict_pictures(body: Pictures) -> Answer:
    return run(body.instances)


app.post("/predict")(predict_vectors if os.environ["BENCH_RANK"] == "1" else predict_pictures)

"""BentoML: two workers, access log off."""

import bentoml
import numpy as np
import tfl


@bentoml.service(workers=2, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Predictor:
    def __init__(self) -> None:
        self.model = tfl.Model()

    @bentoml.api
    def predict(self, instances: list) -> dict:
        return {"predictions": self.model(np.asarray(instances, dtype=np.float32)).tolist()}

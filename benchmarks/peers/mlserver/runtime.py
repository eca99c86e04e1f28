"""MLServer: a custom runtime, as its documentation has it."""

import mlserver
import numpy as np
import tfl
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class TfliteRuntime(mlserver.MLModel):
    async def load(self) -> bool:
        self.model = tfl.Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        batch = NumpyCodec.decode_input(payload.inputs[0]).astype(np.float32, copy=False)
        output = NumpyCodec.encode_output("y", self.model(batch))
        return InferenceResponse(model_name=self.name, outputs=[output])

"""The model for Triton's Python backend: what the dynamic batcher gathered is one invoke."""

import numpy as np
import tfl
import triton_python_backend_utils as utils


class TritonPythonModel:
    def initialize(self, args: dict) -> None:  # noqa: ARG002
        self.model = tfl.Model()

    def execute(self, requests: list) -> list:
        batches = [utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        outputs = self.model(np.concatenate(batches))
        ends = np.cumsum([len(batch) for batch in batches])[:-1]
        return [
            utils.InferenceResponse([utils.Tensor("y", np.ascontiguousarray(part))]) for part in np.split(outputs, ends)
        ]

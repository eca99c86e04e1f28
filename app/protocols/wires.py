"""Which codec speaks which wire format."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from app.protocols.call import Codec, Identity, Wire
from app.protocols.infer_grpc import GrpcInfer
from app.protocols.infer_rest import InferRest
from app.protocols.predict_json import PredictJson
from app.protocols.serving_examples import ServingClassify, ServingRegress
from app.protocols.serving_grpc import GrpcPredict
from app.protocols.serving_grpc_examples import GrpcClassify, GrpcRegress
from app.protocols.serving_json import ServingPredict
from app.tensors import Signature

Maker = Callable[[Identity, Signature], Codec]
"""Makes a codec for what is served, and for one signature of it, as callers see that.

Raises:
    InvalidArgument: requests of this kind have no sense for the signature.
"""

MAKERS: Mapping[Wire, Maker] = MappingProxyType(
    {
        Wire.PREDICT: lambda _, signature: PredictJson(signature),
        Wire.INFER: InferRest,
        Wire.GRPC_INFER: GrpcInfer,
        Wire.SERVING_PREDICT: lambda _, signature: ServingPredict(signature),
        Wire.SERVING_CLASSIFY: ServingClassify,
        Wire.SERVING_REGRESS: ServingRegress,
        Wire.GRPC_PREDICT: GrpcPredict,
        Wire.GRPC_CLASSIFY: GrpcClassify,
        Wire.GRPC_REGRESS: GrpcRegress,
    }
)

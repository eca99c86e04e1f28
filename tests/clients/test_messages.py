"""The messages of Open Inference over gRPC, as Triton's client has them."""

import subprocess

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool

from app.server.rpc.messages import POOL, methods
from tests.clients.programs import python_of_clients
from tests.server.rpc.test_protos import differences, enum_differences

_DUMP = """
import sys
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tritonclient.grpc import model_config_pb2, service_pb2
files = FileDescriptorSet()
for module in (model_config_pb2, service_pb2):
    files.file.add().ParseFromString(module.DESCRIPTOR.serialized_pb)
sys.stdout.buffer.write(files.SerializeToString())
"""


@pytest.mark.slow
def test_the_messages_agree_with_tritons_own() -> None:
    dumped = subprocess.run([python_of_clients(), "-c", _DUMP], capture_output=True, check=True).stdout
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(dumped).file:
        pool.Add(file)
    own = POOL.FindFileByName("inference.proto")

    for message in own.message_types_by_name.values():
        assert differences(message, pool.FindMessageTypeByName(message.full_name)) == []
    for enum in own.enum_types_by_name.values():
        assert enum_differences(enum, pool.FindEnumTypeByName(enum.full_name)) == []
    (service,) = own.services_by_name.values()
    theirs = pool.FindServiceByName(service.full_name)
    assert {method.name for method in methods(service.full_name)} == set(theirs.methods_by_name)
    for method in methods(service.full_name):
        other = theirs.methods_by_name[method.name]
        for kind in ("input_type", "output_type"):
            assert getattr(method.descriptor, kind).full_name == getattr(other, kind).full_name

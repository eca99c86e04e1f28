"""gRPC: TensorFlow Serving's services and Open Inference's. `edge` and what only it imports, grpc itself among that, is
imported only where `grpc_port` is set.
"""

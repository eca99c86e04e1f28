"""The express lane for gRPC: HTTP/2 without TLS (prior knowledge), for the few calls that are hot.

`connection` is the protocol on the TCP port. It reads frames (`reading`, with `frames`, `hpack` and `heads`, and with
`patience` for clients that ask too much) and sends them as the client takes them (`sending`, `replies`). A call has a
stream (`roster`, `streams`, `message`): that of a hot method goes straight to a callback (`unary`, or `streaming` where
it takes many requests), any other unchanged to a grpc.aio server on a private socket (`relayed`, `relay`). Where there
is an access log, each has a line in it (`access`). TLS is for a proxy in front.
"""

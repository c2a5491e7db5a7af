"""How servers on this machine are reached: directly, whatever the environment says of proxies."""

HOST = "127.0.0.1"
# gRPC's library follows http_proxy otherwise, and knows of no_proxy's forms only some.
DIRECT = ("grpc.enable_http_proxy", 0)

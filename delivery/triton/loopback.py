"""How servers on this machine are reached: directly, whatever the environment says of proxies."""

import http.client

HOST = "127.0.0.1"
# gRPC's library follows http_proxy otherwise, and knows of no_proxy's forms only some.
DIRECT = ("grpc.enable_http_proxy", 0)


def get(port: int, path: str, timeout: float) -> int:
    """Return the status of the answer to a GET. Raises OSError or http.client.HTTPException."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()

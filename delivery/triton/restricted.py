"""What a caller of a server may not do: seen by trying it without the administrators' value."""

from collections.abc import Iterator
from typing import Any

from delivery.errors import DeliveryError
from delivery.triton.client import Client, connect
from delivery.triton.server import MODEL, Ports

Request = tuple[str, *tuple[str, ...]]  # a method of NVIDIA's client, and its arguments

# One harmless request to each of Triton's interfaces, by the names of `--http-restricted-api`.
RESTRICTED: dict[str, Request] = {
    "shared-memory": ("get_system_shared_memory_status",),
    "model-config": ("get_model_config", MODEL),
    "model-repository": ("get_model_repository_index",),
    "statistics": ("get_inference_statistics", MODEL),
    "trace": ("get_trace_settings",),
    "logging": ("get_log_settings",),
}
OPEN: dict[str, Request] = {
    "health": ("is_model_ready", MODEL),
    "metadata": ("get_model_metadata", MODEL),
}
FLAGS = {"http": "--http-restricted-api", "grpc": "--grpc-restricted-protocol"}
SECRET = "ADMINISTRATION"  # the container's variable with what only administrators know
REFUSED = "is restricted"  # in the reason that Triton gives, besides status 403 over HTTP


def argument(protocol: str) -> str:
    """Return the argument of a container that restricts what callers may do."""
    return f"{FLAGS[protocol]}={','.join(RESTRICTED)}:administration=$({SECRET})"


def faults(protocol: str, ports: Ports) -> list[str]:
    """Say what a server lets every caller do, and what it lets nobody do, against the manifests."""
    with connect(protocol, ports) as client:
        return [*too_open(client), *too_closed(client)]


def too_open(client: Client) -> Iterator[str]:
    """Say which restricted interfaces answer."""
    for name, request in RESTRICTED.items():
        if REFUSED not in reply(client, request):
            yield f"{name} answers everyone"


def too_closed(client: Client) -> Iterator[str]:
    """Say which interfaces that callers need do not answer."""
    for name, request in OPEN.items():
        if refusal := reply(client, request):
            yield f"{name} does not answer: {refusal}"


def reply(client: Client, request: Request) -> str:
    """Return why a server refuses a request; nothing when it does not."""
    method, *arguments = request
    try:
        answer: Any = client.call(method, *arguments)
    except DeliveryError as refusal:
        return str(refusal)
    return "" if answer else "no"

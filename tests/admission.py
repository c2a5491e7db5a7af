"""Pods that the policy `known-images` admits, and those that it refuses, by their reason."""

from typing import Any

Object = dict[str, Any]

DIGEST = f"@sha256:{'a' * 64}"
SERVER = "nvcr.io/nvidia/tritonserver"
REGISTRY = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/digits"
LOCAL = "localhost:5001/digits"
NAMESPACE: Object = {
    "apiVersion": "v1",
    "kind": "Namespace",
    "metadata": {
        "name": "known-images-tried",
        "labels": {"images": "known"},
        "annotations": {"images-from": f"{SERVER} {REGISTRY} {LOCAL}"},
    },
}


def pod(*images: str, volume: str = "", **more: Any) -> Object:
    """A pod with a container for each image, and perhaps an image as its volume."""
    containers = [{"name": f"c{n}", "image": image} for n, image in enumerate(images)]
    volumes = [{"name": "model", "image": {"reference": volume}}] if volume else []
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "tried", "namespace": NAMESPACE["metadata"]["name"]},
        "spec": {"containers": containers, "volumes": volumes, **more},
    }


def others(image: str) -> list[Object]:
    """More containers of another sort, with one image."""
    return [{"name": "more", "image": image}]


GOOD = SERVER + DIGEST
ADMITTED = {
    "server and model": pod(GOOD, volume=REGISTRY + DIGEST),
    "tag and digest, as make pin writes them": pod(f"{SERVER}:26.07-py3{DIGEST}"),
    "an init container": pod(GOOD, initContainers=others(GOOD)),
    "a registry with a port": pod(LOCAL + DIGEST, volume=f"{LOCAL}:v1{DIGEST}"),
    "other volumes": pod(GOOD)
    | {"spec": {"containers": others(GOOD), "volumes": [{"name": "tmp", "emptyDir": {}}]}},
}
REFUSED = {
    "a tag": pod(f"{SERVER}:26.07-py3"),
    "neither tag nor digest": pod(SERVER),
    "a short digest": pod(f"{SERVER}@sha256:{'a' * 63}"),
    "another registry": pod(f"evil.io/tritonserver{DIGEST}"),
    "a name that only begins alike": pod(f"{SERVER}-evil{DIGEST}"),
    "a folder below a known name": pod(f"{SERVER}/evil{DIGEST}"),
    "a host that looks alike": pod(f"nvcr.io.evil.io/nvidia/tritonserver{DIGEST}"),
    "a second container": pod(GOOD, f"evil.io/sidecar{DIGEST}"),
    "an init container": pod(GOOD, initContainers=others(f"evil.io/init{DIGEST}")),
    "a model of another registry": pod(GOOD, volume=f"evil.io/digits{DIGEST}"),
    "a model by tag": pod(GOOD, volume=f"{REGISTRY}:v1"),
}
# One that is added to a pod that runs, which a new pod cannot have.
ADDED = pod(GOOD, ephemeralContainers=others(f"evil.io/shell{DIGEST}"))

"""Strict validation: Kubernetes' own kinds, and controllers' kinds where their schemas are at hand.

Those schemas are the `openAPIV3Schema` of the kinds' definitions, one JSON file for each,
`<group>_<version>_<kind>.json`, in the folder that CRD_SCHEMAS names or in `../shared/crds`.
"""

import json
import os
from pathlib import Path

import kubernetes_validate
from jsonschema import Draft202012Validator

KUBERNETES = "1.36"
FOLDER = Path(
    os.environ.get("CRD_SCHEMAS", Path(__file__).parent.parent.parent / "shared" / "crds")
)


def core_errors(document: dict) -> list[str] | None:
    """Return what Kubernetes would refuse or ignore, None for a kind that is not its own."""
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError:
        return None
    except kubernetes_validate.ValidationError as error:
        return [f"{'.'.join(map(str, error.path))}: {error.message}"]
    return []


def crd_errors(document: dict) -> list[str]:
    """Return what the controller's schema refuses; the kind's schema must be in FOLDER."""
    group_version = document["apiVersion"].replace("/", "_")
    path = FOLDER / f"{group_version}_{document['kind'].lower()}.json"
    validator = Draft202012Validator(closed(json.loads(path.read_text())))
    errors = sorted(validator.iter_errors(document), key=lambda error: list(map(str, error.path)))
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in errors]


def closed(schema: dict) -> dict:
    """Return the schema with the API server's treatment of unknown keys made explicit."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: closed(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result.setdefault("additionalProperties", False)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = closed(schema[key])
    if schema.get("nullable"):
        return {"anyOf": [{"type": "null"}, result]}
    return result

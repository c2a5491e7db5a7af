"""Strict validation: Kubernetes' own kinds, and controllers' kinds where their schemas are at hand.

Those schemas are the `openAPIV3Schema` of the kinds' definitions, one JSON file for each,
`<group>_<version>_<kind>.json`, in the folder that CRD_SCHEMAS names or in `../shared/crds`. A test
is skipped where it comes to a kind whose schema is not there, so it asks for such a kind last.
"""

import json
import os
from pathlib import Path

import kubernetes_validate
import pytest
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
    """Return what the controller's schema refuses."""
    validator = Draft202012Validator(closed(crd_schema(document["apiVersion"], document["kind"])))
    errors = sorted(validator.iter_errors(document), key=lambda error: list(map(str, error.path)))
    return [f"{'.'.join(map(str, error.path))}: {error.message}" for error in errors]


def crd_schema(version: str, kind: str) -> dict:
    """Return the schema of a controller's kind; skip the test where it is not at hand."""
    path = FOLDER / f"{version.replace('/', '_')}_{kind.lower()}.json"
    if not path.is_file():
        pytest.skip(f"there is no {path.name} in {FOLDER}; name the schemas' folder in CRD_SCHEMAS")
    return json.loads(path.read_text())


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

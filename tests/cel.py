"""Expressions of Kubernetes' policies, evaluated by a CEL library."""

from typing import Any

import celpy
from celpy.adapter import json_to_cel

KUBERNETES = {  # what Kubernetes adds to CEL
    "split": lambda text, by: json_to_cel(str(text).split(str(by))),
    "substring": lambda text, start: json_to_cel(str(text)[int(start) :]),
}


def evaluate(expression: str, known: dict[str, Any]) -> Any:
    """Return an expression's value."""
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression), functions=KUBERNETES)
    return program.evaluate(known)


def with_variables(spec: dict[str, Any], seen: dict[str, Any]) -> dict[str, Any]:
    """Return what a policy's expressions know: what it sees, and its variables in their order."""
    known = {name: json_to_cel(value) for name, value in seen.items()}
    variables: dict[str, Any] = {}
    for each in spec["variables"]:
        known["variables"] = json_to_cel(variables)
        variables[each["name"]] = evaluate(each["expression"], known)
    return known | {"variables": json_to_cel(variables)}

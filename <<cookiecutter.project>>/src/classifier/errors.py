"""The other name of `UserError`, until nothing imports it any more."""

from workspace.errors import UserError as ClassifierError

__all__ = ["ClassifierError"]

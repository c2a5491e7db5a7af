"""What a user of the pipeline can put right."""

from workspace.errors import UserError


class ClassifierError(UserError):
    """Base of every failure that a stage reports; the message is the whole report."""

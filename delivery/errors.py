"""What a user of a delivery command can put right."""

from workspace.errors import UserError


class DeliveryError(UserError):
    """Base of every failure that a delivery command reports; the message is the whole report."""

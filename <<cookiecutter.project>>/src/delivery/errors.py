"""What a user can put right: reported as one sentence, without a traceback."""


class DeliveryError(Exception):
    """Base of every failure that a delivery command reports; the message is the whole report."""

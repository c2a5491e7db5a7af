"""What a user can put right: reported as one sentence, without a traceback."""


class ClassifierError(Exception):
    """Base of every failure that the pipeline reports; the message is the whole report."""

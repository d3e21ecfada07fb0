"""What a user can mend about a model, as one exception."""


class ModelError(ValueError):
    """A model, adapter or device that cannot be used as asked; the message says what is wrong and what to do."""

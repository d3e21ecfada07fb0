"""What a user can mend about a model, as one exception."""


class ModelError(ValueError):
    """A model, adapter or device that cannot be used as asked; says what is wrong and what to do."""


LONGEST = 200
"""Characters of another library's message that ours repeats."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, as a sentence."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0].strip()[:LONGEST]
    return text if text.endswith((".", "!", "?")) else text + "."

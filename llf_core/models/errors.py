"""What a user can mend about a model, as one exception."""


class ModelError(ValueError):
    """A model, adapter or device that cannot be used as asked; says what is wrong and what to do."""


LONGEST = 200
"""Characters of another library's message that ours repeats."""


def first_line(error: BaseException) -> str:
    """The first line of another library's message, as a sentence."""
    return _line(error, 0)


def last_line(error: BaseException) -> str:
    """The last line of it: the cause, where a library says first which of its checks has found it."""
    return _line(error, -1)


def _line(error: BaseException, place: int) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines[place] if lines else type(error).__name__)[:LONGEST].rstrip()
    if isinstance(error, KeyError):
        text = f"{text} is not known"
    elif isinstance(error, TypeError | AttributeError) and not text.startswith("Field "):
        text = f"a value is of another type than expected ({text.rstrip('.')})"
    return text if text.endswith((".", "!", "?")) else text + "."

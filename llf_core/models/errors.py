from llf_core.user_error import BAD_CONFIG, UserError


class ModelError(UserError, ValueError):
    """A model, adapter or device cannot be used as configured. The message says what is wrong and what to do."""

    exit_code = BAD_CONFIG


NO_CERTIFICATES = "SSL_CERT_FILE, SSL_CERT_DIR or REQUESTS_CA_BUNDLE names a file of certificates that is missing."
MAX_QUOTED = 200
OPTIONAL_PACKAGES = ("torchvision", "torchcodec", "librosa", "num2words", "timm", "torchaudio", "sentencepiece")
"""Packages that some models need and LLF does not install, the most common first."""
TORCHVISION_OFFSET = 15
"""torchvision 0.(n + 15) is built for torch 2.n."""


def first_line(error: BaseException) -> str:
    """First line of an exception's message, or its type, as a sentence of at most `MAX_QUOTED` characters."""
    return _line(error, 0)


def lacks_certificates(error: BaseException) -> bool:
    """Whether a connection failed since the file of certificates that the environment names is missing."""
    return isinstance(error, FileNotFoundError) and error.errno is not None and error.filename is None


def connection_line(error: BaseException) -> str:
    """`first_line` of an error of a connection; of missing certificates it says so."""
    return NO_CERTIFICATES if lacks_certificates(error) else first_line(error)


def last_line(error: BaseException) -> str:
    """Last line of an exception's message, as by `first_line`: the cause, where the failed check is named first."""
    return _line(error, -1)


def _line(error: BaseException, place: int) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines[place] if lines else type(error).__name__)[:MAX_QUOTED].rstrip()
    if isinstance(error, KeyError):
        text = f"{text} is not known"
    elif isinstance(error, TypeError | AttributeError) and not text.startswith("Field "):
        text = f"a value is of another type than expected ({text.rstrip('.')})"
    return text if text.endswith((".", "!", "?")) else text + "."


def missing_package(error: Exception) -> str:
    """Sentence that names the missing package and the command that installs it; else the message's first line."""
    named = [name for name in OPTIONAL_PACKAGES if name in str(error).lower()]
    if not named:
        return first_line(error)
    package = named[0]
    wanted = f'"torchvision=={_torchvision()}.*"' if package == "torchvision" and _torchvision() else package
    return f"it needs {package}, which is not installed. Run pip install {wanted}, then restart."


def _torchvision() -> str | None:
    """Version of torchvision that matches the installed torch 2, e.g. `0.28`; without it, pip would replace torch."""
    import torch

    major, minor = torch.__version__.split(".")[:2]
    return f"0.{int(minor) + TORCHVISION_OFFSET}" if major == "2" and minor.isdigit() else None

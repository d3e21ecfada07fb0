"""Train, evaluate and export language models. Imports nothing of Jupyter, so that a run needs no notebook."""

__version__ = "0.1.0"

NO_WINDOWS = (
    "LLF does not run on Windows: its runs need POSIX processes and file locks. "
    "Use the Windows Subsystem for Linux (wsl --install), Linux or macOS."
)

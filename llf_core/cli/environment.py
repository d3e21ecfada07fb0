from rich.markup import escape

from llf_core import __version__
from llf_core.cli.parameters import Json
from llf_core.cli.terminal import out, print_json


def env(as_json: Json = False) -> None:
    """Show versions, device and folders: what to paste into a bug report."""
    from llf_core.launch.environment import describe

    facts = describe()
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        text = ", ".join(f"{k} {v}" for k, v in value.items() if v) if isinstance(value, dict) else value
        out.print(f"{key:10} {escape(str(text))}")


def version() -> None:
    """Print the version, for scripts and bug reports."""
    out.print(__version__)

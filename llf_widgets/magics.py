"""`%llf` and `%%llf_train`: common commands in a cell. The work is in `llf_core`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from IPython.core.error import UsageError
from IPython.core.magic import Magics, cell_magic, line_magic, magics_class
from IPython.display import display

from llf_core.untrusted import visible
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable

    from IPython.core.interactiveshell import InteractiveShell

    from llf_core.launch import Run

USAGE = """\
%llf runs                 the newest runs
%llf monitor [RUN]        charts of a run, live or past
%llf stop [RUN]           stops after the current step with a checkpoint
%llf checkpoint [RUN]     saves a checkpoint now
%llf kill [RUN]           kills the run
%llf resume [RUN]         resumes from the newest checkpoint
%llf chat [RUN]           a chat with its base model and its newest weights
%%llf_train [VARIABLE]    starts a run from the YAML in the cell and shows it
%%llf_chat MODEL …        asks models the question in the cell and shows their replies
RUN is a run id or `last`, the default."""
MAX_ROWS = 20


@magics_class
class LLFMagics(Magics):
    """The magics of `%load_ext llf_widgets`."""

    @line_magic
    def llf(self, line: str) -> Any:
        """List, show and control runs; `%llf help` lists the commands.

        Args:
            line: a command and a run id; without a run, or with `last`, the newest one.

        Returns:
            A `Monitor` or `Chat` for `%llf monitor` and `%llf chat`, which IPython displays; None for commands that
            print.
        """
        arguments = _arguments(line)
        name = arguments[0] if arguments else "help"
        command = COMMANDS.get(name)
        if command is None or len(arguments) > 2:  # noqa: PLR2004 - a command and a run
            raise UsageError(f"%llf {line} is not a command. Expected one of:\n{USAGE}")
        try:
            return command(arguments[1] if len(arguments) > 1 else "last")
        except (ValueError, OSError, RuntimeError) as error:
            raise UsageError(str(error)) from None

    @cell_magic
    def llf_train(self, line: str, cell: str) -> None:
        """Start a run from YAML and show its monitor below the cell.

        Args:
            line: name of the variable that receives the run; may be empty.
        """
        from llf_widgets.start import train

        variable = line.strip()
        if variable and not variable.isidentifier():
            raise UsageError(f"%%llf_train {variable}: expected a variable name, or no argument.")
        try:
            run = train(cell)
        except (UserError, OSError, RuntimeError) as error:
            raise UsageError(str(error)) from None
        if variable:
            assert self.shell is not None  # noqa: S101 - IPython registers magics with its shell
            self.shell.user_ns[variable] = run
        display(_monitor(run))  # type: ignore[no-untyped-call]

    @cell_magic
    def llf_chat(self, line: str, cell: str) -> Any:
        """Ask models the question in the cell in a new conversation, and show the chat below it.

        Args:
            line: one to four models, as for `llf.Chat`; empty for the newest run beside its base.
        """
        from llf_widgets.chat import Chat

        targets = _arguments(line)
        try:
            chat = Chat(*targets) if targets else _chat("last")
            chat.new_chat()
            chat.ask(cell.strip())
        except (ValueError, OSError, RuntimeError) as error:
            raise UsageError(str(error)) from None
        return chat


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Register the magics. IPython calls it on `%load_ext llf_widgets`."""
    shell.register_magics(LLFMagics)


def _arguments(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        raise UsageError(
            f"{line} has a quotation mark without its partner, or a backslash at its end. Expected names with spaces "
            "between them, and quotation marks around one that has spaces itself."
        ) from None


def _attach(name: str) -> Run:
    from llf_core.launch import attach
    from llf_core.runs import list_runs

    if name != "last":
        return attach(name)
    rows = list_runs(limit=1).rows
    if not rows:
        raise ValueError("No runs yet. Start one with llf.train(…) or llf.Studio().")
    return attach(rows[0].id)


def _runs(_: str) -> None:
    from llf_core.runs import list_runs

    page = list_runs(limit=MAX_ROWS)
    for row in page.rows:
        steps = f"{row.step} of {row.total}" if row.total else ""
        print(visible(f"{row.id:<44} {row.state:<9} {steps:<14} {row.name}".rstrip()))  # noqa: T201 - the cell's output
    rest = page.total - len(page.rows)
    print(f"and {rest:,} more" if rest > 0 else "" if page.rows else "No runs yet.")  # noqa: T201 - the cell's output


def _monitor(run: Any) -> Any:
    from llf_widgets.monitor import Monitor

    return Monitor(_attach(run) if isinstance(run, str) else run)


def _chat(name: str) -> Any:
    from llf_widgets.chat import Chat

    run = _attach(name)
    return Chat(f"{run.id}@base", run)


def _stop(name: str) -> None:
    run = _attach(name)
    _print_status(run, "has already ended" if run.stop(by="magic") is None else "stops after the current step")


def _checkpoint(name: str) -> None:
    from llf_core.runs import send_request

    run = _attach(name)
    if run.status().has_ended:
        raise ValueError(f"{run.id} is {run.state}. Expected a live run.")
    send_request(run.folder, "checkpoint", by="magic")
    _print_status(run, "saves a checkpoint after the current step")


def _kill(name: str) -> None:
    run = _attach(name)
    _print_status(run, f"is {run.kill(by='magic').state}")


def _resume(name: str) -> None:
    run = _attach(name)
    run.resume()
    _print_status(run, "was resumed")


def _help(_: str) -> None:
    print(USAGE)  # noqa: T201 - the cell's output


def _print_status(run: Run, what: str) -> None:
    print(f"{run.id} {what}.")  # noqa: T201 - the cell's output


COMMANDS: dict[str, Callable[[str], Any]] = {
    "runs": _runs,
    "monitor": _monitor,
    "chat": _chat,
    "stop": _stop,
    "checkpoint": _checkpoint,
    "kill": _kill,
    "resume": _resume,
    "help": _help,
}

"""The `llf` command: its subcommands, and error handling."""

import errno
import os
import sys
from contextlib import suppress
from io import TextIOWrapper

import typer
from rich.markup import escape

from llf_core import __version__
from llf_core.cli.chat import chat, chats_delete, chats_list, chats_restore, serve
from llf_core.cli.evaluate import evaluate, predict, reward_accuracy, runs_loss, runs_win_rate
from llf_core.cli.export import adapter_extract, adapter_shrink, export
from llf_core.cli.model_search import models
from llf_core.cli.runs import (
    runs_branch,
    runs_checkpoint,
    runs_clean,
    runs_delete,
    runs_evaluate,
    runs_export,
    runs_fetch,
    runs_import,
    runs_kill,
    runs_list,
    runs_replay,
    runs_restore,
    runs_resume,
    runs_sample,
    runs_set,
    runs_show,
    runs_stop,
)
from llf_core.cli.terminal import Json, file_message, out, print_error, print_json, temporary_folder_message
from llf_core.cli.train import demo, estimate, find_learning_rate, inspect, parameters, train, try_rewards, validate
from llf_core.user_error import UserError


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


app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Fine-tune language models. Runs are stored in $LLF_HOME/runs and continue when this terminal closes.",
)
runs_app = typer.Typer(no_args_is_help=True, help="List, show, stop, resume and delete runs.")
app.add_typer(runs_app, name="runs")
chats_app = typer.Typer(no_args_is_help=True, help="List, delete and restore conversations.")
app.add_typer(chats_app, name="chats")
adapter_app = typer.Typer(no_args_is_help=True, help="Shrink the rank of a LoRA, or extract one from two models.")
app.add_typer(adapter_app, name="adapter")

app.command()(train)
app.command()(validate)
app.command()(inspect)
app.command()(parameters)
app.command()(estimate)
app.command()(find_learning_rate)
app.command()(try_rewards)
app.command()(models)
app.command()(serve)
app.command()(chat)
app.command()(predict)
app.command("eval")(evaluate)
app.command()(export)
app.command()(env)
app.command()(demo)
app.command()(version)
chats_app.command("list")(chats_list)
chats_app.command("delete")(chats_delete)
chats_app.command("restore")(chats_restore)
adapter_app.command("shrink")(adapter_shrink)
adapter_app.command("extract")(adapter_extract)
runs_app.command("list")(runs_list)
runs_app.command("show")(runs_show)
runs_app.command("fetch")(runs_fetch)
runs_app.command("stop")(runs_stop)
runs_app.command("checkpoint")(runs_checkpoint)
runs_app.command("evaluate")(runs_evaluate)
runs_app.command("sample")(runs_sample)
runs_app.command("set")(runs_set)
runs_app.command("replay")(runs_replay)
runs_app.command("branch")(runs_branch)
runs_app.command("loss")(runs_loss)
runs_app.command("win-rate")(runs_win_rate)
app.command("reward-accuracy")(reward_accuracy)
runs_app.command("kill")(runs_kill)
runs_app.command("resume")(runs_resume)
runs_app.command("delete")(runs_delete)
runs_app.command("restore")(runs_restore)
runs_app.command("clean")(runs_clean)
runs_app.command("export")(runs_export)
runs_app.command("import")(runs_import)


def main() -> None:
    """Run the command line: the entry point of `llf`. Errors that the user can fix are lines without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal that lacks a sign, or a file name that is no text
            stream.reconfigure(errors="backslashreplace")
    from llf_core.runs.process_log import log_to

    log_to("stderr")  # stdout is the command's result
    try:
        app()
    except UserError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        message = file_message(error) if error.filename else temporary_folder_message(error)
        if message:
            print_error(OSError(message))
            sys.exit(1)
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}:
            raise
        with suppress(OSError, ValueError):  # what is left of the output goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        print_error(
            OSError(f"The output cannot be written: {error.strerror}. Free disk space or write to another place.")
        )
        sys.exit(1)

"""Runs an evaluation in a child process."""

from __future__ import annotations

import errno
import importlib
import inspect
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from functools import partial
from typing import IO, TYPE_CHECKING, Any

import psutil

from llf_core.launch.local_process import computing_environment, threads_of
from llf_core.launch.supervisor import signal_name
from llf_core.models.bounded_templates import panics_as_errors
from llf_core.models.lazy_imports import deferred_imports, prepare_imports
from llf_core.runs import open_run
from llf_core.runs.config_file import run_config
from llf_core.runs.foreign_code import RUN_VALUE, VARIABLE, UntrustedCodeError
from llf_core.runs.formatting import without_escapes
from llf_core.runs.process_log import log_to
from llf_core.runs.trust import TooMuchCodeError
from llf_core.untrusted import brief

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Progress = Callable[[str, int, int], object]
"""Called with a description of the work, the number of steps done and the total."""
OnStart = Callable[[Callable[[], None]], object]
"""Called with a function that ends the process, which another thread may call while it runs."""


def no_progress(what: str, done: int, total: int) -> None:
    """Progress callback that does nothing."""


def no_item(item: object) -> None:
    """Callback for items that does nothing."""


def run_in_child(  # noqa: PLR0913 - what runs, and who hears of it
    module: str,
    *arguments: str,
    home: Path | None = None,
    progress: Progress = no_progress,
    trust: bool = False,
    of: str | None = None,
    on_item: Callable[[Any], object] = no_item,
    on_start: OnStart = no_item,
) -> Any:
    """Run a module in a child process and return the value that it prints with `print_result`.

    Args:
        module: module to run with `python -m`.
        home: `LLF_HOME`; None for the environment's.
        progress: progress callback. An exception in it, such as an interrupt, ends the process and is raised.
        trust: whether to allow Python code of models and runs that has not been allowed yet, and to remember it as
            allowed.
        of: id of the run whose models are loaded, for the number of threads; None for one per usable core.
        on_item: called with each item printed before the value; exceptions as of `progress`.
        on_start: called with a function that ends the process and its children; exceptions as of `progress`.

    Raises:
        RuntimeError: the process failed or printed no value, or an argument cannot be passed to it; the message is one
            sentence.
        UntrustedCodeError: code would run that the user has not allowed.
    """
    for one in arguments:
        if not _can_be_passed(one):
            raise RuntimeError(f"{brief(one)!r} has a character that cannot be passed to a process. Remove it.")
    # -P: a `datasets.py` beside the notebook must not shadow the library
    command = [sys.executable, "-P", "-m", module, *arguments]
    env = computing_environment(os.environ | ({} if home is None else {"LLF_HOME": str(home)}), _threads(of, home))
    env[VARIABLE] = RUN_VALUE if trust else ""
    said = ""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors,
        _started(command, env, errors) as child,
    ):
        assert child.stdout is not None  # noqa: S101 - for the type checker
        try:
            on_start(partial(_end, child))
            said = _listen(child.stdout, progress, on_item)
            child.wait()
        except BaseException:
            _end(child)
            raise
        errors.seek(0)
        complaints = without_escapes(errors.read()).strip().splitlines()
    if child.returncode == 0:
        try:
            return json.loads(said)
        except ValueError:
            raise RuntimeError(f"The child process printed no result, but {brief(said) or 'nothing'}.") from None
    if child.returncode < 0:
        name = signal_name(-child.returncode)
        raise RuntimeError(f"The process with the model was terminated by {name}. Check that enough memory is free.")
    failure = _object(said) if said.startswith('{"error"') else None
    if failure is not None:
        if failure.get("untrusted"):
            raise UntrustedCodeError(failure["error"], found=failure.get("code", ()))
        raise RuntimeError(failure["error"])
    raise RuntimeError((complaints or ["The child process exited without output."])[-1])


def _started(command: list[str], env: dict[str, str], errors: IO[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(  # noqa: S603 - a module of this package
            command, stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace", env=env
        )
    except OSError as error:
        if error.errno != errno.E2BIG:
            raise
        size = sum(len(os.fsencode(one)) for one in command)
        raise RuntimeError(
            f"What the process is given has {size:,} bytes, more than the system passes on. Expected shorter or fewer "
            "texts."
        ) from None


def _end(child: subprocess.Popen[str]) -> None:
    """Kill a process with its children, such as a program that reads an export back."""
    if child.poll() is not None:
        return  # its id may be another process's by now
    try:
        started = psutil.Process(child.pid).children(recursive=True)
    except psutil.Error:
        started = []
    child.kill()
    for one in started:
        with suppress(psutil.Error):
            one.kill()


def _listen(lines: Iterable[str], progress: Progress, on_item: Callable[[Any], object]) -> str:
    """Pass on what the process reports until it ends, and return its last other line."""
    said = ""
    for line in lines:
        if line.startswith('{"progress"') and (message := _object(line)) is not None:
            progress(*message["progress"])
        elif line.startswith('{"item"') and (message := _object(line)) is not None:
            on_item(message["item"])
        else:
            said = line.strip() or said
    return said


def _object(line: str) -> dict[str, Any] | None:
    """A JSON object in a line; None if the process was killed within it."""
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _can_be_passed(argument: str) -> bool:
    """Whether a text is a valid argument: NUL and lone surrogates are not."""
    try:
        return b"\0" not in os.fsencode(argument)
    except UnicodeEncodeError:
        return False


def _threads(run_id: str | None, home: Path | None) -> int | None:
    if run_id is None:
        return None
    try:
        return threads_of(open_run(run_id, home))
    except (FileNotFoundError, ValueError):
        return None  # the process reports the error


def print_result(make: Callable[..., object], *, of: str | None = None) -> None:
    """Print a value as a line of JSON for `run_in_child`, or the error; all other output goes to stderr.

    Args:
        make: computes the value. If it takes an argument, it receives a progress callback. A second argument is called
            with each item that is passed on before the value, as JSON.
        of: id of the run whose models are loaded, for which only the libraries that they need are imported.
    """
    stdout = sys.stdout
    log_to("stderr")
    prepare_imports()

    def tell(what: str, done: int, total: int) -> None:
        print(json.dumps({"progress": [what, done, total]}), file=stdout, flush=True)

    def pass_on(item: object) -> None:
        print(json.dumps({"item": item}), file=stdout, flush=True)

    value: object
    try:
        with redirect_stdout(sys.stderr), panics_as_errors():
            if of is not None:
                _import_for(of)
            value = make(*(tell, pass_on)[: len(inspect.signature(make).parameters)])
    except Exception as error:  # noqa: BLE001 - printed for the parent process, which raises it
        from llf_core.training.failures import explain_failure

        traceback.print_exc()
        untrusted = isinstance(error, UntrustedCodeError)
        code: list[dict[str, object]] = []
        if isinstance(error, UntrustedCodeError):
            with suppress(TooMuchCodeError):  # changed meanwhile: the message says what would run
                code = error.shown
        expected = type(error) in {ValueError, FileNotFoundError}
        message = str(error) if expected else explain_failure(error).reason
        print(json.dumps({"error": message, "untrusted": untrusted, "code": code}))  # noqa: T201 - the result
        sys.exit(1)
    print(json.dumps(value))  # noqa: T201 - the result, in ASCII: no character of a completion breaks the line


def _import_for(run_id: str) -> None:
    from llf_core.config import ConfigError

    try:
        config = run_config(open_run(run_id))
    except (ConfigError, FileNotFoundError, ValueError):
        return  # `make` reports the error
    with deferred_imports(config):
        importlib.import_module("transformers.modeling_utils")
        importlib.import_module("peft")

"""Calls of the system's OpenSSH, with the user's config, keys and agent. No user input reaches a shell."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from llf_core import __version__
from llf_core.redaction import redact
from llf_core.untrusted import NotPlainError, json_value, visible
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.remote.address import Host

MARK = b'{"llf":'
"""Beginning of the first line of `on_host`; a login shell may print other lines before it."""
ANSWER_SECONDS = 60.0  # maximum duration of a single request; chosen by hand
CONNECT_SECONDS = 10
# Whoever has LLF in an environment of its own links that to `venv` in LLF_HOME there.
ON_HOST = """exec sh -c 'p="${LLF_HOME:-$HOME/.llf}/venv/bin/python"; [ -x "$p" ] || p=python3; exec "$p" -P -m %s'"""
MODULE = "llf_core.remote.on_host"
OPTIONS = (
    # No questions, nothing that listens here, and no command of the config in place of ours.
    *("-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_SECONDS}"),
    *("-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none"),
)


class RemoteError(UserError, RuntimeError):
    """Another host cannot be reached, or refuses a request."""


def ssh_command(host: Host, module: str = MODULE) -> list[str]:
    """The ssh command line that runs a module of LLF on a host; requests and their data go through its stdin."""
    port = ["-p", host.port] if host.port else []
    user = ["-l", host.user] if host.user else []
    return ["ssh", "-T", *OPTIONS, *port, *user, "--", host.name, ON_HOST % module]


def ask(
    host: Host, request: Mapping[str, object], *, module: str = MODULE, timeout: float = ANSWER_SECONDS
) -> dict[str, Any]:
    """Send one request to a module of LLF on a host, and return its answer.

    Raises:
        RemoteError: there is no connection, the host has no LLF or another version, or it refuses the request.
    """
    try:
        done = subprocess.run(  # noqa: S603 - fixed words and a checked name
            ssh_command(host, module), input=encoded(request), capture_output=True, timeout=timeout, check=False
        )
    except FileNotFoundError:
        raise RemoteError("The program ssh was not found. Install OpenSSH's client.") from None
    except subprocess.TimeoutExpired:
        raise RemoteError(f"{host} did not answer within {timeout:g} s.") from None
    lines = [line for line in done.stdout.splitlines() if line.startswith(b"{")]
    start = next((number for number, line in enumerate(lines) if line.startswith(MARK)), None)
    if start is None or len(lines) < start + 2:
        raise RemoteError(problem(host, done.stderr, done.returncode))
    check_hello(host, lines[start])
    return decoded(host, lines[start + 1])


def encoded(message: Mapping[str, object]) -> bytes:
    """A message as one line of JSON."""
    return json.dumps(message).encode() + b"\n"


def decoded(host: Host, line: bytes) -> dict[str, Any]:
    """Decode a message of a host.

    Raises:
        RemoteError: it is malformed, or a refusal.
    """
    try:
        message = json_value(line)
    except NotPlainError:
        message = None
    if not isinstance(message, dict):
        raise RemoteError(f"{host} has sent something that is not a message of LLF.")
    if "refused" in message:
        raise RemoteError(f"{host}: {visible(str(message['refused']))}")
    return message


def check_hello(host: Host, line: bytes) -> None:
    """Check that the host has this version of LLF: the messages of others may differ.

    Raises:
        RemoteError: the versions differ.
    """
    version = str(decoded(host, line)["llf"])
    if version != __version__:
        raise RemoteError(
            f"{host} has LLF {visible(version[:40])}, this machine {__version__}.",
            "Install the same version on both.",
        )


def problem(host: Host, stderr: bytes, code: int | None) -> str:
    """Explain why ssh or the program on the host failed, from its stderr and exit code."""
    text = stderr.decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("@", "Warning:"))]
    last = visible(redact(lines[-1]))[:300].rstrip(".") if lines else f"ssh ended with exit code {code}"
    if "REMOTE HOST IDENTIFICATION HAS CHANGED" in text:
        return (
            f"The host key of {host} has changed, so nothing was sent. If the machine was set up again, remove its old "
            f"key with `ssh-keygen -R {_known_name(host)}`; otherwise somebody may be in between."
        )
    if "Host key verification failed" in text:
        return f"The host key of {host} is unknown, so nothing was sent. Connect once with ssh and confirm it."
    if "Permission denied" in text and code == 255:  # noqa: PLR2004 - ssh's own failures
        return f"{host} refuses the login: {last}. Expected a key that ssh can use without a question."
    if "No module named" in text or code in {126, 127}:
        return (
            f"{host} has no LLF: {last}. Install llf {__version__} there for the python3 of its PATH, or link its "
            "environment to ~/.llf/venv."
        )
    return f"No connection to {host}: {last}."


def _known_name(host: Host) -> str:
    return f"'[{host.name}]:{host.port}'" if host.port else host.name


def sftp_command(host: Host) -> Sequence[str]:
    """The sftp command line; it reads commands from stdin and stops at the first that fails."""
    port = ["-P", host.port] if host.port else []
    user = ["-o", f"User={host.user}"] if host.user else []
    return ["sftp", "-q", *OPTIONS, *port, *user, "-b", "-", "--", f"[{host.name}]" if ":" in host.name else host.name]


def sftp(host: Host, commands: Sequence[tuple[str, ...]]) -> None:
    """Transfer files by sftp over one connection.

    Args:
        commands: words of sftp's commands, such as `("get", "-r", path, path)`, which are quoted here.

    Raises:
        RemoteError: a command failed, or a path has a line break.
    """
    if any("\n" in word or "\r" in word for command in commands for word in command):
        raise RemoteError("A path has a line break. Expected paths without one.")
    script = "".join(" ".join(_sftp_word(word) for word in command) + "\n" for command in commands)
    try:
        done = subprocess.run(  # noqa: S603 - fixed words and a checked name
            sftp_command(host), input=script.encode(), capture_output=True, check=False
        )
    except FileNotFoundError:
        raise RemoteError("The program sftp was not found. Install OpenSSH's client.") from None
    if done.returncode != 0:
        raise RemoteError(problem(host, done.stderr, done.returncode))


def _sftp_word(word: str) -> str:
    """Quote a word for sftp, which then does not expand `*`, `?` and `[`."""
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'

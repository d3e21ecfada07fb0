"""`llf.check`: compares kernel and server, and lists missing packages."""

from __future__ import annotations

import http.client
import json
import os
import platform
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from jupyter_server.serverapp import list_running_servers

from llf_core import __version__
from llf_core.install_command import install_command, llf_install_command
from llf_widgets.home import display_runs_path, server_mismatches

TRAINING_PACKAGES = ("torch", "transformers", "peft", "trl", "datasets", "accelerate")
TIMEOUT = 3.0


@dataclass(frozen=True)
class Check:
    """Result of `llf.check()`; its display is the answer to "why is my panel empty?".

    Attributes:
        kernel: `llf` and `python`, the versions of this kernel, and `runs`, its folder of runs.
        server: the server's response to `llf/api/version`; None without a Jupyter server, or if it does not answer.
        problems: sentences with instructions; empty if all is well.
    """

    kernel: dict[str, str]
    server: dict[str, Any] | None
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def __repr__(self) -> str:
        lines = ["kernel  " + ", ".join(f"{key} {value}" for key, value in self.kernel.items())]
        if self.server:
            lines.append(f"server  llf {self.server['llf']}, runs {self.server['folder']}")
        return "\n".join(lines + (self.problems or ["All versions match."]))


def check() -> Check:
    """Compare LLF in the kernel with the Jupyter server, and check the packages for training.

    Kernel and server may be different environments; then the panel can be empty although runs exist.
    """
    kernel = {"llf": __version__, "python": platform.python_version(), "runs": display_runs_path()}
    problems = []
    missing = [name for name in TRAINING_PACKAGES if find_spec(name) is None]
    if missing:
        problems.append(f"Training needs {', '.join(missing)} here. Run: {install_command('train')}")
    server, error = _ask_server()
    if error:
        problems.append(error)
    if server:
        problems += server_mismatches(server)
    return Check(kernel, server, problems)


def _ask_server() -> tuple[dict[str, object] | None, str | None]:
    """The answer of the server that started this kernel, or a sentence that says why there is none."""
    parent = os.environ.get("JPY_PARENT_PID")
    try:
        # The record of another server may be removed at this moment, or not be readable.
        servers = [info for info in list_running_servers() if str(info["pid"]) == parent]
        if not servers:
            return None, None  # a script, or a host without a Jupyter server: nothing to compare with
        request = urllib.request.Request(  # noqa: S310 - the server's own record of its address
            servers[0]["url"] + "llf/api/version",
            headers={"Authorization": f"token {servers[0].get('token', '')}"},
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=TIMEOUT) as response:
            found = json.load(response)
    except urllib.error.HTTPError as failure:
        if failure.code == 404:  # noqa: PLR2004
            return None, (
                "LLF is not installed in the Jupyter server (404), so the panel stays empty. "
                f"Run {llf_install_command()} in its environment, then restart it."
            )
        return None, f"The Jupyter server refused to report its version ({failure.code}). Log in to it again."
    except (OSError, http.client.HTTPException, ValueError) as failure:  # a `URLError` is an OSError
        return None, f"The Jupyter server did not report its version: {failure or type(failure).__name__}."
    if not isinstance(found, dict) or not found.keys() >= {"llf", "home", "folder"}:
        return None, "The Jupyter server did not report its version: it answered otherwise. Update LLF in it."
    return found, None

"""`python -m llf_core.launch.start_sent`: receives a run from another machine and starts it here; ssh runs it."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.launch.environment import start_facts
from llf_core.launch.launchers import start_run
from llf_core.launch.resume import resume
from llf_core.launch.start import load_checked_config
from llf_core.redaction.file_modes import make_folder, make_private
from llf_core.remote.on_host import serve
from llf_core.runs import RunFolder, home, open_run, update_env
from llf_core.runs.creation import rename_to_free_id
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.folder import check_run_id
from llf_core.runs.status import first_status
from llf_core.runs.trust import sign_run

if TYPE_CHECKING:
    from collections.abc import Mapping

NEEDED = ("torch", "transformers", "peft", "datasets")
OF_THIS_MACHINE = ("packages", "python", "platform", "device", "threads")


def _answer(request: Mapping[str, Any]) -> Mapping[str, object]:
    match request.get("do"):
        case "ready":
            return {"lacks": [name for name in NEEDED if find_spec(name) is None]}
        case "receive":
            folder = home() / "runs" / f".new-{os.getpid()}-{secrets.token_hex(4)}"
            make_folder(folder)
            return {"folder": str(folder)}
        case "start":
            return {"run": _start(request).id}
        case "resume":
            return {"run": _resume(request).id}
    raise ValueError(f"Unknown request {str(request.get('do'))[:40]!r}.")


def _start(request: Mapping[str, Any]) -> RunFolder:
    """Start a run that was sent. Its folder is removed if it is refused."""
    place, command = Path(str(request["folder"])), request.get("command")
    if place.parent != home() / "runs" or not place.name.startswith(".new-"):
        raise ValueError(f"{place} is not a folder that was made for a run.")
    folder = RunFolder(place / "run")
    try:
        config = load_checked_config(folder.config, [], home(), command)
        replace_file(folder.status, json_bytes(first_status(time.time())))
        facts = start_facts(config, None, None)
        update_env(folder, **{name: facts[name] for name in OF_THIS_MACHINE if name in facts})
        make_private(folder.path)
        run = rename_to_free_id(folder.path, home() / "runs", check_run_id(str(request["wanted"])))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    sign_run(run)
    start_run(run, {**dict(request.get("env") or {}), "LLF_HOME": str(home())}, command)
    return run


def _resume(request: Mapping[str, Any]) -> RunFolder:
    run, command, env = open_run(check_run_id(str(request["run"]))), request.get("command"), request.get("env")
    resume(run, env, check_config=command is None, num_processes=request.get("num_processes"))
    start_run(run, {**dict(env or {}), "LLF_HOME": str(home())}, command)
    return run


if __name__ == "__main__":
    serve(lambda request, _, send: send(_answer(request), b""))

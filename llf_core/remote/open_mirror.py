"""Opens mirrors, lists runs on other hosts, fetches results."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from llf_core.redaction.file_modes import make_private
from llf_core.remote.address import AddressError, Host, parse_address
from llf_core.remote.on_host import digests
from llf_core.remote.ssh import RemoteError, ask, sftp
from llf_core.runs import RunFolder, read_status
from llf_core.runs.archive import replace_folder
from llf_core.runs.folder import home_folder
from llf_core.untrusted import json_value

RESULT_SECONDS = 600.0  # for the host to read its result; chosen by hand


def open_mirror(address: str, home: Path | str | None = None) -> RunFolder:
    """The local copy of a run on another host, kept up to date by a background process.

    Args:
        address: `ssh://host/run`, where the run is an id, the beginning of one, or `last`.

    Raises:
        AddressError: it is not the address of a run.
        RemoteError: the host cannot be reached and there is no earlier copy, has another version of LLF or no such run.
    """
    host, run = parse_address(address)
    if not run:
        raise AddressError(
            f"{address} names no run. Expected ssh://host/run; `llf runs list --on ssh://{host}` lists them."
        )
    command = [sys.executable, "-P", "-m", "llf_core.remote.mirror", address, str(home_folder(home))]
    done = subprocess.run(  # noqa: S603 - our own module
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        start_new_session=True,
    )
    said = json_value(done.stdout) if done.stdout else None
    if not isinstance(said, dict) or "folder" not in said:
        why = str(said.get("problem")) if isinstance(said, dict) else done.stderr.decode(errors="replace")[-500:]
        raise RemoteError(why or "The process that copies the run did not start.")
    return RunFolder(Path(str(said["folder"])))


def list_remote(host: Host, **query: object) -> dict[str, Any]:
    """List the runs of a host: `total`, `runs` (see `Row.json`), and `lines`, a table for a terminal.

    Args:
        query: `offset`, `limit`, `state`, `query` as in `llf_core.runs.list_runs`, and `width` of the lines.
    """
    return ask(host, {"do": "list", **query})


def fetch_result(folder: RunFolder) -> Path:
    """Copy the result of a mirrored run to `output/` by sftp, checked by SHA-256; returns that folder.

    Raises:
        RemoteError: the run is not mirrored, has no result yet, or its host cannot be reached; the result has changed.
    """
    mirror = read_status(folder).mirror
    if mirror is None:
        raise RemoteError(f"{folder.id} is a run of this machine. Its result is in {folder.output}.")
    host, _ = parse_address(f"ssh://{mirror.get('host')}")
    result = ask(host, {"do": "result", "run": folder.id}, timeout=RESULT_SECONDS)
    work = folder.path / ".output"
    shutil.rmtree(work, ignore_errors=True)
    try:
        sftp(host, [("get", "-r", str(result["path"]), str(work))])
        expected = {str(name): tuple(facts) for name, facts in dict(result["files"]).items()}
        if (found := digests(work)) != expected:
            wrong = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
            raise RemoteError(f"The result of {folder.id} has changed while it was copied: {', '.join(wrong[:5])}.")
        make_private(work)
        previous = replace_folder(work, folder.output)
        if previous is not None:
            shutil.rmtree(previous)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder.output

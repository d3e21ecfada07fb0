"""File permissions of runs: readable by the owner only, unless `LLF_HOME_MODE` says otherwise."""

from __future__ import annotations

import errno
import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from pathlib import Path

VARIABLE = "LLF_HOME_MODE"
PRIVATE = 0o700
AS_UMASK = "umask"
_MODE = re.compile("0?[02]?7[0-7]{2}")


class ModeError(UserError, OSError):
    """`LLF_HOME_MODE` is not a mode. An OSError, since whoever creates a file expects one."""

    exit_code = BAD_CONFIG

    def __init__(self, message: str) -> None:
        OSError.__init__(self, errno.EINVAL, message)
        self.message, self.what_to_do = message, ""


def folder_mode() -> int | None:
    """Permissions of run folders: 0700, or the octal digits in `LLF_HOME_MODE`; None if that is `umask`.

    Raises:
        ModeError: the variable is not a mode.
    """
    said = os.environ.get(VARIABLE, "").strip()
    if not said:
        return PRIVATE
    if said == AS_UMASK:
        return None
    if _MODE.fullmatch(said) is None:
        raise ModeError(
            f"{VARIABLE} is {said!r}. Expected the octal mode of a run's folders with 7 for their owner, such as 0750, "
            f"or {AS_UMASK}."
        )
    return int(said, 8)


def file_mode() -> int:
    """Permissions of new files of a run: what its folders permit to read and write, 0666 if the umask decides."""
    mode = folder_mode()
    return 0o666 if mode is None else mode & 0o666


def make_private(folder: Path) -> None:
    """Set the permissions of a folder and everything in it, except links and files of other users.

    Libraries create files with the permissions of the umask. Files that cannot be changed are left as they are.
    """
    mode = folder_mode()
    if mode is None:
        return
    for place, folders, files in os.walk(folder):
        _set_mode(place, mode)
        for name in files:
            _set_mode(os.path.join(place, name), mode & 0o666)  # noqa: PTH118
        folders[:] = [name for name in folders if not os.path.islink(os.path.join(place, name))]  # noqa: PTH114, PTH118


def make_folder(folder: Path) -> None:
    """Make a folder with the permissions of run folders. An existing one is left as it is."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    mode = folder_mode()
    try:
        folder.mkdir()
    except FileExistsError:
        return
    if mode is not None:
        os.chmod(folder, mode)  # noqa: PTH101 - it was just made


def _set_mode(path: str, mode: int) -> None:
    with suppress(OSError):  # removed concurrently, or a file system without permissions
        facts = os.lstat(path)
        if not stat.S_ISLNK(facts.st_mode) and facts.st_uid == os.getuid() and stat.S_IMODE(facts.st_mode) != mode:
            os.chmod(path, mode)  # noqa: PTH101 - it was just looked at

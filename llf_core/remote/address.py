"""Addresses of hosts and of runs on them: `ssh://[user@]host[:port][/run]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.runs.folder import home_folder
from llf_core.user_error import BAD_CONFIG, UserError

if TYPE_CHECKING:
    from pathlib import Path

SCHEME = "ssh://"
# Nothing that a shell or a program could take for something else: no leading `-`, no spaces, no signs.
_ADDRESS = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@)?"
    r"(?:(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)|\[(?P<ipv6>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?"
)


class AddressError(UserError, ValueError):
    """The text is not the address of a host or of a run on one."""

    exit_code = BAD_CONFIG


@dataclass(frozen=True)
class Host:
    """Another machine, as the user's OpenSSH knows it.

    Attributes:
        name: name, alias of `~/.ssh/config` or IP address.
        user: empty for OpenSSH's default.
        port: empty for OpenSSH's default.
    """

    name: str
    user: str = ""
    port: str = ""

    def __str__(self) -> str:
        name = f"[{self.name}]" if ":" in self.name else self.name
        return f"{self.user}{'@' if self.user else ''}{name}{':' if self.port else ''}{self.port}"

    def mirrors(self, home: Path | str | None = None) -> Path:
        """The folder whose `runs/` has the mirrored runs of this host."""
        return home_folder(home) / "remote" / str(self)


def is_address(run: object) -> bool:
    """Whether a text names a run on another host."""
    return isinstance(run, str) and run.startswith(SCHEME)


def parse_address(text: str) -> tuple[Host, str]:
    """Split an address into the host and the run, which is empty if the address names none.

    Raises:
        AddressError: it is not an address.
    """
    where, _, run = text.removeprefix(SCHEME).partition("/")
    found = _ADDRESS.fullmatch(where)
    if not text.startswith(SCHEME) or found is None or int(found["port"] or 0) > 65535:  # noqa: PLR2004 - of TCP
        raise AddressError(f"{text[:200]!r} is not an address. Expected ssh://host/run or ssh://user@host:port/run.")
    return Host(found["name"] or found["ipv6"], found["user"] or "", found["port"] or ""), run.strip("/")

"""Hubs other than Hugging Face's from which models can be downloaded: ModelScope and Modelers."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from llf_core.config.name_checks.repository import read_json
from llf_core.config.paths import expanded
from llf_core.config.shown_url import without_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HUGGING_FACE = "huggingface"
REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
"""A branch, tag or commit of a mirror; it becomes the name of a folder."""
MAIN = "main"
LISTING = ".llf_files.json"
"""File of a downloaded model that lists its complete files: sizes and checksums by name."""


@dataclass(frozen=True)
class MirrorFile:
    """A file in the top folder of a repository.

    Attributes:
        size: bytes.
        sha256: empty if the hub does not give it.
    """

    name: str
    size: int
    sha256: str = ""


@dataclass(frozen=True)
class Mirror:
    """A hub of models with an interface of its own.

    Attributes:
        address_variable: environment variable of the hub's own client with another address.
        token_variable: environment variable of the hub's own client with a token.
        main: its name of the branch that Hugging Face calls `main`.
        list_path: path and query of the list of files in the top folder, from id and revision.
        file_path: path and query of a file, from id, revision and name.
        read_files: the files, from the answer to `list_path`.
    """

    label: str
    address: str
    address_variable: str
    token_variable: str
    main: str
    list_path: Callable[[str, str], str]
    file_path: Callable[[str, str, str], str]
    read_files: Callable[[Any], list[MirrorFile]]

    @property
    def endpoint(self) -> str:
        """Address that requests go to."""
        return (os.environ.get(self.address_variable) or self.address).rstrip("/")

    @property
    def shown(self) -> str:
        """Address for messages, see `without_secrets`."""
        return without_secrets(self.endpoint)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of a request; with the token of the environment, if there is one."""
        token = (os.environ.get(self.token_variable) or "").strip()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def revision(self, name: str) -> str:
        """A `model_revision` by this hub's name."""
        return self.main if name == MAIN else name

    def files(self, model: str, revision: str, seconds: float) -> list[MirrorFile]:
        """List the files in the top folder of a model.

        Args:
            model: `owner/name`.
            revision: branch, tag or commit, by this hub's name.
            seconds: how long the server may be silent; the whole answer may take three times as long.

        Raises:
            MirrorError: the hub refused the request: no such model or revision, or no access.
        """
        status, answer = read_json(f"{self.endpoint}/{self.list_path(model, revision)}", self.headers, seconds=seconds)
        if status >= 400:  # noqa: PLR2004 - refusals and errors of HTTP
            raise MirrorError(status)
        return [one for one in self.read_files(answer) if _is_plain(one.name)]


class MirrorError(Exception):
    """A mirror refused a request; `status` is that of HTTP."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


def _is_plain(name: str) -> bool:
    """Whether a name is that of a file in the top folder: names come from a server and become files here."""
    return bool(name) and name not in {".", ".."} and not set(name) & set("/\\\0")


def _modelscope_files(answer: Mapping[str, Any]) -> list[MirrorFile]:
    entries = answer["Data"]["Files"]
    return [
        MirrorFile(str(one["Path"]), int(one["Size"]), str(one.get("Sha256") or ""))
        for one in entries
        if one.get("Type") != "tree"
    ]


def _modelers_files(answer: Mapping[str, Any]) -> list[MirrorFile]:
    return [
        MirrorFile(str(one["path"]), int(one["size"]), str(one.get("etag") or "") if one.get("is_lfs") else "")
        for one in answer["data"]["tree"]
        if one.get("type") == "file"
    ]


MIRRORS: dict[str, Mirror] = {
    # Paths of modelscope-hub 0.5.1 and openmind-hub 1.3.0, the hubs' own clients.
    "modelscope": Mirror(
        label="ModelScope",
        address="https://modelscope.cn",
        address_variable="MODELSCOPE_ENDPOINT",
        token_variable="MODELSCOPE_API_TOKEN",  # noqa: S106 - the name of a variable
        main="master",
        list_path=lambda model, revision: (
            f"api/v1/models/{model}/repo/files?{urlencode({'Revision': revision, 'Recursive': 'False'})}"
        ),
        file_path=lambda model, revision, name: (
            f"api/v1/models/{model}/repo?{urlencode({'Revision': revision, 'FilePath': name})}"
        ),
        read_files=_modelscope_files,
    ),
    "modelers": Mirror(
        label="Modelers",
        address="https://modelers.cn",
        address_variable="OPENMIND_HUB_ENDPOINT",
        token_variable="OM_HUB_TOKEN",  # noqa: S106 - the name of a variable
        main="main",
        list_path=lambda model, revision: f"api/v1/file/{model}?{urlencode({'path': '', 'ref': revision})}",
        file_path=lambda model, revision, name: f"api/v1/file/{model}/{quote(revision, safe='')}/media/{quote(name)}",
        read_files=_modelers_files,
    ),
}
"""Hubs by the values of `hub`."""


def mirror_of(hub: str) -> Mirror | None:
    """The mirror that a value of `hub` names; None for Hugging Face."""
    return MIRRORS.get(hub)


def cache_folder(hub: str, name: str, revision: str, cache_dir: str | None) -> Path:
    """Folder of a mirror's model in the cache.

    Args:
        hub: value of the key `hub`.
        name: `owner/name`.
        revision: branch, tag or commit, by the mirror's name.
        cache_dir: `cache_dir` of a config. Default: `llf` in the user's cache folder (`XDG_CACHE_HOME`).
    """
    root = Path(cache_dir) if cache_dir else expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "llf"
    return root / hub / name / revision

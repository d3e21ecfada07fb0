"""Pushes a folder to a Hugging Face hub (uses `HF_TOKEN` or the stored login, `HF_ENDPOINT`, proxies) or ModelScope."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from llf_core.config.name_checks.hub import MIRRORS
from llf_core.install_command import install_command
from llf_core.models.errors import connection_line, first_line
from llf_core.redaction import redact
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from huggingface_hub import HfApi

UNAUTHORIZED, FORBIDDEN = 401, 403


def find_destination(repo: str, *, private: bool | None = None, revision: str | None = None) -> Destination:
    """Check, before work of hours, that the hub knows the user and may be written by them.

    Args:
        repo: `owner/name`, or `name` for the user's own; after `modelscope:` one on ModelScope.

    Raises:
        PushError: the id is not valid, nobody is logged in, the owner is neither the user nor one of their
            organizations, or the hub cannot be reached.
    """
    if repo.startswith(MODELSCOPE):
        name = repo.removeprefix(MODELSCOPE)
        if not HUB_ID.fullmatch(name):
            raise PushError(f"{name[:100]!r} is not the id of a repository on ModelScope. Expected owner/name.")
        return Destination(MODELSCOPE + owned(name), private, revision)
    if not HUB_ID.fullmatch(repo):
        raise PushError(f"{repo[:100]!r} is not a hub id. Expected owner/name, or a name for a repository of your own.")
    try:
        who = _push_api().whoami()
    except Exception as error:
        raise _push_explained(error, repo) from error
    user = str(who.get("name") or "")
    full = repo if "/" in repo else f"{user}/{repo}"
    owner = full.partition("/")[0]
    groups = {str(one.get("name")) for one in who.get("orgs") or () if isinstance(one, dict)}
    if owner not in {user, *groups}:
        may = ", ".join([user, *sorted(groups)])
        raise PushError(f"The token of {user} cannot write to {full}. Expected a repository of one of: {may}.")
    return Destination(full, private, revision)


def push_folder(folder: Path, to: Destination, message: str) -> str:
    """Upload the files of a folder in one commit. The repository is made if it is missing.

    Raises:
        PushError: there is no such folder, or the upload failed.
    """
    if not os.path.isdir(folder):  # noqa: PTH112 - no error for a path
        raise PushError(f"{to.repo} was not pushed: {folder} is no folder.")
    if to.repo.startswith(MODELSCOPE):
        return push_to_modelscope(folder, to, message)
    api = _push_api()
    try:
        made = api.create_repo(to.repo, private=to.private, exist_ok=True)
        if to.revision is not None:
            api.create_branch(to.repo, branch=to.revision, exist_ok=True)
        api.upload_folder(
            repo_id=to.repo,
            folder_path=folder,
            commit_message=message,
            revision=to.revision,
            ignore_patterns=list(LEFT_OUT),
        )
    except Exception as error:
        raise _push_explained(error, to.repo, f" {folder} is complete.") from error
    return str(made)


def _push_api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=os.environ.get("HF_TOKEN") or None)


def _push_explained(error: Exception, repo: str, kept: str = "") -> PushError:
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    status: Any = getattr(getattr(error, "response", None), "status_code", None)
    what = f"{repo} was not pushed."
    login = "Set HF_TOKEN to a token that may write, or run `hf auth login`."
    why = redact(connection_line(error))
    if isinstance(error, LocalTokenNotFoundError) or status == UNAUTHORIZED:
        return PushError(f"{what} The hub does not know who you are.{kept}", login)
    if isinstance(error, OfflineModeIsEnabled):
        return PushError(f"{what} HF_HUB_OFFLINE is set.{kept}", "Unset it, and push again.")
    if status == FORBIDDEN:
        return PushError(f"{what} The token may not write there.{kept}", login)
    if isinstance(error, HfHubHTTPError) and status is not None:
        return PushError(f"{what} The hub answered with status {status}: {why}{kept}")
    if isinstance(error, OSError) and error.filename is not None:  # a file of the folder, not of the network
        return PushError(f"{what} {why}")
    return PushError(f"{what} The hub does not answer: {why}{kept}", "Check the network, and push again.")


def commit_message(names: Sequence[str]) -> str:
    """Commit message of what is pushed, at least one name, for example a format and a run."""
    return f"Upload {' of '.join(names)} by LLF"


HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?")

LEFT_OUT = ("llf_result.json",)
"""Files that mean something only on the machine that wrote them."""
MODELSCOPE = "modelscope:"


class PushError(UserError, ValueError):
    """A folder could not be pushed to the hub; it stays complete on the disk."""


@dataclass(frozen=True)
class Destination:
    """Where a folder is pushed to.

    Attributes:
        repo: hub id with its owner; on ModelScope, `MODELSCOPE` and the id.
        private: whether a new repository is private; None for the owner's default.
        revision: branch, made if missing; None for the default one.
    """

    repo: str
    private: bool | None = None
    revision: str | None = None


PACKAGE = "modelscope_hub"
MIRROR = MIRRORS["modelscope"]


def owned(repo: str) -> str:
    """The id of a repository with its owner, after a check that ModelScope knows the user.

    The client does not list organizations, so whether the user may write to one's repository shows only when it is
    pushed.

    Args:
        repo: `owner/name`, or `name` for the user's own.
    """
    api = _push_modelscope_api(repo)
    try:
        user = api.whoami().username
    except Exception as error:
        raise _push_modelscope_explained(error, repo) from error
    return repo if "/" in repo else f"{user}/{repo}"


def push_to_modelscope(folder: Path, to: Destination, message: str) -> str:
    """Upload the files of a folder, a large one in several commits. The repository is made if it is missing.

    Raises:
        PushError: the upload failed, or the client is not installed.
    """
    repo = to.repo.removeprefix(MODELSCOPE)
    api = _push_modelscope_api(repo)
    try:
        if not api.repo_exists(repo, "model"):
            visibility = {None: None, True: "private", False: "public"}[to.private]
            api.create_repo(repo, "model", visibility=visibility)
        api.upload_folder(
            repo,
            "model",
            folder,
            commit_message=message,
            revision=to.revision,
            ignore_patterns=list(LEFT_OUT),
            use_cache=False,  # which would be a file in the folder
            disable_tqdm=True,
        )
    except Exception as error:
        raise _push_modelscope_explained(error, repo, f" {folder} is complete.") from error
    return f"{_address()}/models/{repo}"


def _address() -> str:
    return (os.environ.get(MIRROR.address_variable) or MIRROR.address).rstrip("/")


def _push_modelscope_api(repo: str) -> Any:
    """The client, with the token of the environment and no other."""
    if find_spec(PACKAGE) is None:
        raise PushError(
            f"{repo} was not pushed: ModelScope's client modelscope-hub is not installed.",
            f"Run {install_command('modelscope')}, then push again.",
        )
    token = os.environ.get(MIRROR.token_variable)
    if not token:
        raise PushError(
            f"{repo} was not pushed: {MIRROR.token_variable} is not set.",
            f"Set {MIRROR.token_variable} to a token of ModelScope that may write.",
        )
    from modelscope_hub import HubApi

    return HubApi(endpoint=_address(), token=token)


def _push_modelscope_explained(error: Exception, repo: str, kept: str = "") -> PushError:
    """An error of the client in sentences, without the token."""
    from modelscope_hub import errors

    what = f"{repo} was not pushed to ModelScope."
    login = f"Set {MIRROR.token_variable} to a token that may write there."
    if isinstance(error, errors.AuthenticationError):
        return PushError(f"{what} It does not know the token.{kept}", login)
    if isinstance(error, errors.PermissionDeniedError):
        return PushError(f"{what} The token may not write there.{kept}", login)
    why = redact(first_line(error)).rstrip(". ")
    if isinstance(error, errors.NetworkError):
        return PushError(f"{what} It does not answer: {why}.{kept}", "Check the network, and push again.")
    return PushError(f"{what} It refused the files: {why}.{kept}")


__all__ = ["Destination", "PushError", "commit_message", "find_destination", "push_folder"]

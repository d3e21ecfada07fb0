"""Pushes a folder to ModelScope by its own client (uses `MODELSCOPE_API_TOKEN`, `MODELSCOPE_ENDPOINT`, proxies)."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from llf_core.config.name_checks.hub import MIRRORS
from llf_core.install_command import install_command
from llf_core.models.errors import first_line
from llf_core.models.push_destination import LEFT_OUT, MODELSCOPE, PushError
from llf_core.redaction import redact

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.models.push_destination import Destination

PACKAGE = "modelscope_hub"
MIRROR = MIRRORS["modelscope"]


def owned(repo: str) -> str:
    """The id of a repository with its owner, after a check that ModelScope knows the user.

    The client does not list organizations, so whether the user may write to one's repository shows only when it is
    pushed.

    Args:
        repo: `owner/name`, or `name` for the user's own.
    """
    api = _api(repo)
    try:
        user = api.whoami().username
    except Exception as error:
        raise _explained(error, repo) from error
    return repo if "/" in repo else f"{user}/{repo}"


def push_to_modelscope(folder: Path, to: Destination, message: str) -> str:
    """Upload the files of a folder, a large one in several commits. The repository is made if it is missing.

    Raises:
        PushError: the upload failed, or the client is not installed.
    """
    repo = to.repo.removeprefix(MODELSCOPE)
    api = _api(repo)
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
        raise _explained(error, repo, f" {folder} is complete.") from error
    return f"{_address()}/models/{repo}"


def _address() -> str:
    return (os.environ.get(MIRROR.address_variable) or MIRROR.address).rstrip("/")


def _api(repo: str) -> Any:
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


def _explained(error: Exception, repo: str, kept: str = "") -> PushError:
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

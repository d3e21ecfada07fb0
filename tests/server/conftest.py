"""A Jupyter server with LLF alone, under the base URL `/a%40b/`, that lets nobody in without a token."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from pytest_jupyter.jupyter_server import *  # noqa: F403 - its fixtures, for this folder alone
from tornado.httpclient import HTTPClientError
from traitlets.config import Config

from llf_core import runs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path


@pytest.fixture
def jp_server_config() -> Config:
    return Config(
        {
            "ServerApp": {
                "jpserver_extensions": {"llf_widgets": True, "jupyter_server_terminals": False},
                "allow_unauthenticated_access": False,
                "reraise_server_extension_failures": True,
            }
        }
    )


@pytest.fixture
def ask(jp_fetch: Any) -> Callable[..., Awaitable[tuple[int, Any]]]:
    """Asks a route below `llf/api`; status and decoded answer, an error's too."""

    async def inner(*parts: str, body: Any = None, **options: Any) -> tuple[int, Any]:
        if body is not None:
            body = body if isinstance(body, bytes) else json.dumps(body)
            options = {"method": "POST", **options, "body": body}
        try:
            response = await jp_fetch("llf", "api", *parts, **options)
        except HTTPClientError as error:
            response = error.response
        return response.code, json.loads(response.body)

    return inner


@pytest.fixture
def make_run(llf_home: Path) -> Callable[..., runs.RunFolder]:
    """A run folder made by hand; `status` replaces fields of its status.json."""

    def inner(name: str = "demo", **status: Any) -> runs.RunFolder:
        folder = runs.create_run("model_name_or_path: tiny\nstage: sft\n", name)
        folder.status.write_text(json.dumps(json.loads(folder.status.read_text()) | status))
        return folder

    return inner


@pytest.fixture
def live_process() -> dict[str, Any]:
    """What a status says where this very process seems to train the run."""
    return {"pid": os.getpid(), "started": psutil.Process().create_time(), "supervisor": None}

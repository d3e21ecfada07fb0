"""No route runs code of a run that a stranger made; one tells it, so that the reader can judge."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tornado.httpclient import HTTPClientError

from llf_core.runs import status
from llf_core.runs.trust import sign_run
from llf_widgets.server.routes import ROUTES
from tests.hostile import evil_run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Ask = Callable[..., Awaitable[tuple[int, Any]]]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


async def test_no_route_runs_it(ask: Ask, jp_fetch: Any, tiny_model_dir: Path, mark: Path) -> None:
    run = evil_run(tiny_model_dir, mark)
    for parts in (("runs",), ("runs", run.id), ("monitor",), ("adapters",), ("hosts",), ("bin",), ("version",)):
        assert (await ask(*parts))[0] == 200
    for part in ("monitor", "summary", "code"):
        assert (await ask("runs", run.id, part))[0] == 200
    assert (await ask("runs", run.id, params={"details": "1"}))[0] == 200
    assert (await ask("runs", run.id, "monitor", params={"details": "1"}))[0] == 200
    assert (await jp_fetch("llf", "api", "runs", run.id, "output.zip")).code == 200
    with pytest.raises(HTTPClientError, match="404"):
        await jp_fetch("llf", "api", "runs", run.id, "exports", "none.zip")
    for kind in ("evaluate", "sample", "stop"):
        assert (await ask("runs", run.id, "control", body={"type": kind}))[0] == 409
    assert (await ask("runs", run.id, "bin", body={}))[0] == 200
    assert (await ask("bin"))[0] == 200
    assert (await ask("bin", run.id, "restore", body={}))[0] == 200
    assert len(ROUTES) == 17, "a new route: ask it above too"
    assert not mark.exists()  # noqa: ASYNC240


async def test_the_code_of_a_run_is_told_until_it_is_allowed(ask: Ask, tiny_model_dir: Path, mark: Path) -> None:
    run = evil_run(tiny_model_dir, mark)
    code, found = await ask("runs", run.id, "code")
    assert code == 200
    rewards, model = found["code"]
    assert rewards["files"][0]["name"] == "code/vowels.py"
    assert rewards["files"][0]["lines"][0].startswith("with open(")
    assert {file["name"] for file in model["files"]} == {"evil.py", "custom_generate/generate.py"}
    assert len(found["sha256"]) == 64
    status.update(run, state="stopped")
    sign_run(run)
    assert await ask("runs", run.id, "code") == (200, {"sha256": "", "code": []})

"""Nobody gets anything without a token, nor with one where the server's authorizer says no."""

from __future__ import annotations

import warnings

import pytest
from jupyter_server.auth import Authorizer
from jupyter_server.base.handlers import APIHandler
from jupyter_server.serverapp import ServerApp
from jupyter_server.utils import JupyterServerAuthWarning
from traitlets.config import Config

from llf_widgets.server import routes

VERBS = ("get", "head", "post", "put", "patch", "delete")
EXPECTED = {
    ("get", "version"),
    ("get", "runs"),
    ("get", "runs/ID"),
    ("get", "runs/ID/output.zip"),
    ("get", "runs/ID/exports/KEY.zip"),
    ("get", "runs/ID/monitor"),
    ("get", "runs/ID/summary"),
    ("get", "monitor"),
    ("post", "runs/ID/control"),
    ("get", "runs/ID/code"),
    ("patch", "runs/ID/meta"),
    ("post", "runs/ID/bin"),
    ("get", "bin"),
    ("delete", "bin/ID"),
    ("post", "bin/ID/restore"),
    ("get", "adapters"),
    ("get", "hosts"),
}


def served() -> list[tuple[str, str, type[APIHandler]]]:
    """Each verb that a handler of ours answers, with its route."""
    return [
        (verb, pattern.replace("(?P<run_id>[^/]+)", "ID").replace("(?P<key>[^/]+)", "KEY").replace("\\", ""), handler)
        for pattern, handler in routes.ROUTES
        for verb in VERBS
        if getattr(handler, verb) is not getattr(APIHandler, verb)
    ]


ROUTES = [(verb, route) for verb, route, _ in served()]


def test_there_are_these_routes_and_no_others():
    assert set(ROUTES) == EXPECTED


async def knock(client, base_url, verb, route, folder, headers):
    options = {"body": '{"type": "stop"}'} if verb in {"post", "patch"} else {}
    url = f"{base_url}llf/api/{route.replace('ID', folder.id)}"
    return await client.fetch(url, method=verb.upper(), headers=headers, raise_error=False, **options)


@pytest.mark.parametrize(("verb", "route"), ROUTES)
async def test_without_a_token_nothing(http_server_client, jp_base_url, make_run, verb, route):
    folder = make_run(state="running")
    response = await knock(http_server_client, jp_base_url, verb, route, folder, {})
    assert response.code == 403
    assert folder.id.encode() not in response.body
    assert not list(folder.control.iterdir())


class Denying(Authorizer):
    """Says no to LLF's runs, and remembers what it was asked."""

    asked: tuple[str, str] | None = None

    def is_authorized(self, handler, user, action, resource):
        type(self).asked = (action, resource)
        return resource != "llf_runs"


class TestDenied:
    @pytest.fixture
    def jp_server_config(self, jp_server_config):
        return jp_server_config | Config({"ServerApp": jp_server_config.ServerApp | {"authorizer_class": Denying}})

    @pytest.mark.parametrize(("verb", "route"), ROUTES)
    async def test_what_the_authorizer_denies_is_not_done(
        self, http_server_client, jp_base_url, jp_auth_header, make_run, verb, route
    ):
        folder = make_run(state="running")
        response = await knock(http_server_client, jp_base_url, verb, route, folder, jp_auth_header)
        assert response.code == 403
        assert Denying.asked == ("read" if verb == "get" else "write", "llf_runs")
        assert not list(folder.control.iterdir())


class Served(ServerApp):
    """A server that is never started: it leaves the signals to the tests."""

    def init_signal(self):
        pass


def auth_warnings():
    """What Jupyter Server says of handlers that do not ask who is there."""
    ServerApp.clear_instance()
    app = Served(
        allow_unauthenticated_access=False,
        allow_root=True,
        open_browser=False,
        jpserver_extensions={"llf_widgets": True},
        reraise_server_extension_failures=True,
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        app.initialize(argv=[], find_extensions=False, new_httpserver=False)
    return [str(one.message) for one in said if issubclass(one.category, JupyterServerAuthWarning)]


def test_the_server_finds_no_open_route(jp_environ):
    assert auth_warnings() == []


def test_it_would_find_one(jp_environ, monkeypatch):
    class OpenHandler(APIHandler):
        def get(self):
            self.finish({})

    monkeypatch.setattr(routes, "ROUTES", (*routes.ROUTES, ("open", OpenHandler)))
    assert any("OpenHandler" in text for text in auth_warnings())

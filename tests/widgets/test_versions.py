from __future__ import annotations

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

import llf_widgets as llf
from llf_core import __version__
from llf_core.install_command import install_command, llf_install_command
from llf_widgets import versions
from llf_widgets.home import home_hash


@pytest.fixture
def server(monkeypatch):
    """A Jupyter server's answer to `llf/api/version`, as the parent of this process."""

    class Handler(BaseHTTPRequestHandler):
        code = 200
        answer = {"llf": __version__, "home": home_hash(), "folder": "~/.llf/runs"}  # noqa: RUF012
        seen: list[tuple[str, str | None]] = []  # noqa: RUF012

        def do_GET(self):
            self.seen.append((self.path, self.headers["Authorization"]))
            self.send_response(self.code)
            self.end_headers()
            self.wfile.write(json.dumps(self.answer).encode())

        def log_message(self, *_):
            """Says nothing."""

    web = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=web.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    info = {"pid": os.getppid(), "url": f"http://127.0.0.1:{web.server_port}/hub/", "token": "abc"}
    other = {"pid": 1, "url": "http://127.0.0.1:9/", "token": "no"}
    monkeypatch.setattr(versions, "list_running_servers", lambda: [other, info])
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getppid()))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    yield Handler
    web.shutdown()
    thread.join()
    web.server_close()


@pytest.fixture(autouse=True)
def everything_installed(monkeypatch):
    monkeypatch.setattr(versions, "find_spec", lambda name: name)


def test_all_is_well(server):
    found = llf.check()
    assert found.ok
    assert server.seen == [("/hub/llf/api/version", "token abc")]
    assert repr(found).splitlines()[-1] == "All versions match."
    assert "abc" not in repr(found)


def test_versions_and_folders_that_differ_are_named(server):
    server.answer = {"llf": "0.0.1", "home": "00", "folder": "~/other/runs"}
    version, folder = llf.check().problems
    assert version.startswith(f"The kernel has LLF {__version__}, the server 0.0.1.")
    assert "the panel reads ~/other/runs" in folder


def test_a_server_without_llf_is_told_what_to_install(server):
    server.code = 404
    (said,) = llf.check().problems
    assert f"Run {llf_install_command()} in its environment" in said


def test_a_server_that_refuses_is_named(server):
    server.code = 403
    assert llf.check().problems == ["The Jupyter server refused to report its version (403). Log in to it again."]


@pytest.mark.parametrize("answer", [[], {"llf": __version__}, None])
def test_a_server_that_answers_otherwise_is_named(server, answer):
    server.answer = answer
    (said,) = llf.check().problems
    assert said.startswith("The Jupyter server did not report its version: it answered otherwise.")


def test_a_server_that_hangs_up_is_named(server, monkeypatch):
    monkeypatch.setattr(server, "do_GET", lambda self: self.close_connection)
    (said,) = llf.check().problems
    assert said.startswith("The Jupyter server did not report its version: Remote end closed")


def test_what_training_needs_is_named(monkeypatch):
    monkeypatch.setattr(versions, "list_running_servers", list)
    monkeypatch.setattr(versions, "find_spec", lambda name: None if name in {"torch", "peft"} else name)
    assert llf.check().problems == [f"Training needs torch, peft here. Run: {install_command('train')}"]


def test_a_record_of_a_server_that_cannot_be_read_is_a_sentence(monkeypatch, tmp_path):
    (tmp_path / "jpserver-1.json").mkdir()
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    (said,) = llf.check().problems
    assert said.startswith("The Jupyter server did not report its version: ")
    assert "Is a directory" in said


def test_a_script_has_no_server_to_compare_with(monkeypatch):
    monkeypatch.setattr(versions, "list_running_servers", list)
    found = llf.check()
    assert found.ok
    assert found.server is None

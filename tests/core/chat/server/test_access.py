"""Who may use the server: keys, names, origins."""

import http.client

import httpx
import pytest

from llf_core.chat.server.guard import Access, KeyRefusedError, is_loopback, keys_of, new_key
from tests.core.chat.server.conftest import KEY

ROUTES = (
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/base"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/score"),
    ("POST", "/v1/score/evaluation"),
    ("GET", "/nowhere"),
    ("OPTIONS", "/v1/models"),
)
CHAT = {"model": "base", "messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x"}


def answer(served, method, path, **headers):
    """The answer to a request with these headers only."""
    field = "messages" if "chat" in path else "input" if "embeddings" in path or "score" in path else "prompt"
    body = {key: CHAT[key] for key in ("model", field)}
    with httpx.Client(base_url=served.url) as client:
        return client.request(method, path, headers=headers, json=body if method == "POST" else None)


@pytest.mark.parametrize(
    ("host", "only_here"),
    [
        ("localhost", True),
        ("127.0.0.9", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:10.0.0.1", False),
        ("0.0.0.0", False),
        ("a.name", False),
    ],
)
def test_an_address_of_this_machine_alone_is_known(host, only_here):
    assert is_loopback(host) is only_here


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_needs_the_key(served, method, path):
    asked = len(served.service.asked)
    for given in (None, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", f"Basic {KEY}", KEY, "Bearer", "Bearer ä".encode()):
        refused = answer(served, method, path, **({} if given is None else {"Authorization": given}))
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer"), given
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert KEY not in refused.text
    assert len(served.service.asked) == asked
    allowed = answer(served, method, path, Authorization=f"Bearer {KEY}")
    others = {"/nowhere": 404, "/v1/score": 400, "/v1/score/evaluation": 400}  # of this service
    assert allowed.status_code == others.get(path, 405 if method == "OPTIONS" else 200)


def test_health_is_open_and_says_nothing(served):
    assert answer(served, "GET", "/health").json() == {"status": "ok"}


def test_each_of_several_keys_is_right(serve):
    with serve(access=Access("127.0.0.1", keys=("first-key", "second-key"))) as server:
        for key in ("first-key", "second-key"):
            assert answer(server, "GET", "/v1/models", Authorization=f"Bearer {key}").status_code == 200
        assert answer(server, "GET", "/v1/models", Authorization="Bearer first-keysecond-key").status_code == 401


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("localhost:1234", 200), ("[::1]:80", 200), ("LOCALHOST", 200), ("localhost.", 200),
        ("evil.example", 403), ("127.0.0.1.evil.example", 403), ("localhost@evil.example", 403), ("", 403),
        ("192.168.0.7", 403), ("[localhost]evil.example", 403), ("[::1]evil.example", 403), ("[localhost]", 403),
        ("localhost:80.evil.example", 403), ("[]", 403),
    ],
)  # fmt: skip
def test_a_name_of_another_machine_is_refused(served, host, status):
    assert answer(served, "GET", "/health", Host=host).status_code == status


def test_a_request_without_a_name_is_refused(served):
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection._http_vsn, connection._http_vsn_str = 10, "HTTP/1.0"
    connection.putrequest("GET", "/health", skip_host=True)
    connection.endheaders()
    assert connection.getresponse().status == 403
    connection.close()


def test_on_all_addresses_any_address_and_allowed_names_are_right(serve):
    with serve(access=Access("0.0.0.0", ("llf.example:80", ""), (KEY,))) as server:
        statuses = [answer(server, "GET", "/health", Host=host).status_code for host in ("192.168.0.7", "[fe80::1]:1")]
        assert statuses == [200, 200]
        assert answer(server, "GET", "/health", Host="LLF.example:8000").status_code == 200
        for host in ("evil.example", ""):
            assert answer(server, "GET", "/health", Host=host).status_code == 403


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}


def test_pages_of_other_origins_are_refused(served):
    page = {"Origin": "https://evil.example", "Authorization": f"Bearer {KEY}"}
    for method, path in (*ROUTES, ("GET", "/health")):
        refused = answer(served, method, path, **page, **PREFLIGHT)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in refused.headers
    assert answer(served, "GET", "/health", Origin="null").status_code == 403
    own = answer(served, "GET", "/v1/models", **page | {"Origin": served.url})
    assert own.status_code == 200


def test_an_allowed_origin_may_read_answers_and_errors(serve):
    page = {"Origin": "https://chat.example"}
    with serve(access=Access("127.0.0.1", keys=(KEY,), origins=("https://chat.example/",))) as server:
        asked = answer(server, "OPTIONS", "/v1/chat/completions", **page, **PREFLIGHT)
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "https://chat.example")
        for key, status in ((KEY, 200), ("wrong", 401)):
            got = answer(server, "POST", "/v1/chat/completions", **page, Authorization=f"Bearer {key}")
            assert (got.status_code, got.headers["access-control-allow-origin"]) == (status, "https://chat.example")
        other = answer(server, "OPTIONS", "/v1/models", Origin="https://evil.example", **PREFLIGHT)
        assert other.status_code == 403


def test_a_form_of_a_page_is_no_request(served):
    body = b'{"model": "base", "prompt": "x"}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        refused = served.http.post("/v1/completions", content=body, headers={"Content-Type": kind})
        assert refused.status_code == 415


def test_keys_come_from_the_environment_and_leave_it(monkeypatch):
    monkeypatch.setenv("ONE_KEY", "first")
    monkeypatch.setenv("TWO_KEY", "a-long-second-key")
    assert keys_of(["ONE_KEY", "TWO_KEY"], exposed=False) == ["first", "a-long-second-key"]
    with pytest.raises(KeyRefusedError, match="'ONE_KEY' is not set"):  # child processes do not inherit it
        keys_of(["ONE_KEY"], exposed=False)


@pytest.mark.parametrize(
    ("key", "words"), [("short", "has 5 characters. Expected at least 16"), ("a b" * 9, "blank"), ("ä" * 20, "header")]
)
def test_a_key_that_cannot_protect_is_refused(monkeypatch, key, words):
    monkeypatch.setenv("A_KEY", key)
    with pytest.raises(KeyRefusedError, match=words) as refused:
        keys_of(["A_KEY"], exposed=True)
    assert key not in str(refused.value)


def test_generated_keys_differ():
    assert new_key() != new_key()
    assert len(new_key()) > 40

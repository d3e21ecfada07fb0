"""Clients that send too much, too slowly, or nothing that makes sense; that do not read; that are gone."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llf_core.chat.request import Failed, Piece, Started
from llf_core.chat.server import app as server_app
from llf_core.chat.server import listen
from llf_core.chat.server.completions import read_chat_call
from llf_core.chat.server.listen import PortError, open_socket
from llf_core.chat.server.replies import MAX_UNREAD
from tests.core.chat.server.conftest import KEY
from tests.core.chat.server.scripted_service import ScriptedService, finished, hello, until_cancelled

HEAD = f"Host: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
BODY = json.dumps({"model": "base", "messages": [{"role": "user", "content": "x"}]})
STREAMED = json.dumps({"model": "base", "messages": [{"role": "user", "content": "x"}], "stream": True})


def connected(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=120)


def post(body, path="/v1/chat/completions"):
    return f"POST {path} HTTP/1.1\r\n{HEAD}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def everything(connection):
    """What the server sends until it closes the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_100_mb_is_refused(served, chunked):
    asked = len(served.service.asked)
    part = b'"' + b"x" * (2**20 - 1)
    parts = (part for _ in range(100)) if chunked else part * 100
    refused = served.http.post("/v1/completions", content=parts, headers={"Content-Type": "application/json"})
    assert (refused.status_code, refused.json()["error"]["message"]) == (
        413,
        "The body is too large. Expected at most 8 MB.",
    )
    assert len(served.service.asked) == asked


def test_a_body_of_too_many_values_is_refused(served):
    """Read as JSON, it takes the server's loop seconds and 400 MB."""
    lists = ",".join(["[]"] * 2_500_000)
    for body in (f'{{"model": "base", "messages": [{lists}]}}', '{"model": "base", "stop": [' + '"",' * 2_500_000):
        refused = served.http.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
        message = refused.json()["error"]["message"]
        assert (refused.status_code, message) == (400, "The body has too many values. Expected at most 200,000.")


def test_the_signs_of_a_text_are_no_values(served):
    content = '[{,"\\' * 1_000_000
    served.service.answer = hello
    assert served.chat(messages=[{"role": "user", "content": content}]).status_code == 200
    assert served.service.asked[-1].request.messages[0]["content"] == content


def test_large_bodies_are_read_one_at_a_time_and_hold_up_no_small_one(served, monkeypatch):
    begun, goes_on = [], threading.Event()

    def read(body):
        if len(body["messages"]) > 1000:
            begun.append(body)
            assert goes_on.wait(120)
        return read_chat_call(body)

    monkeypatch.setattr(server_app, "read_chat_call", read)
    served.service.answer = hello
    large = [{"role": "user", "content": "x"}] * 2000
    with ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(served.chat, messages=large) for _ in range(2)]
        wait_for(lambda: begun)
        assert [served.chat().status_code for _ in range(3)] == [200] * 3
        assert len(begun) == 1
        goes_on.set()
        assert [one.result().status_code for one in answers] == [200, 200]
    assert len(begun) == 2


@pytest.mark.parametrize("port", [70_000, -1])
def test_a_port_that_does_not_exist_is_no_other_one(port):
    with pytest.raises(PortError, match="Expected one from 0 to 65535"):
        open_socket("127.0.0.1", port)


def test_small_parts_are_sent_at_once():
    """asyncio turns off Nagle's algorithm only on sockets made for TCP: with it each answer takes 40 ms more."""
    with open_socket("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_headers_that_are_too_large_are_refused(served):
    with connected(served) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
        assert everything(connection).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("start", [b"", b"GET /hea", b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: "])
def test_slow_headers_end_the_connection(serve, start):
    with serve(header_seconds=0.3) as server, connected(server) as connection:
        connection.sendall(start)
        stop = threading.Event()

        def trickle():
            while start and not stop.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        assert everything(connection) == b""
        stop.set()
        thread.join()
        assert server.http.get("/health").status_code == 200


def test_connections_that_say_nothing_keep_nobody_out(serve, monkeypatch):
    monkeypatch.setattr(listen, "MAX_CONNECTIONS", 32)
    monkeypatch.setattr(listen, "MAX_SILENT", 8)
    with serve() as server:
        half_open = [connected(server) for _ in range(40)]
        for one in half_open[:20]:
            one.sendall(b"GET /health HTTP/1.1\r\nHost: loc")
        assert server.http.get("/health").status_code == 200
        assert everything(half_open[0]) == b""
        for one in half_open:
            one.close()


def test_a_reply_goes_on_whoever_else_is_silent(serve, monkeypatch):
    monkeypatch.setattr(listen, "MAX_SILENT", 2)
    with serve(ScriptedService(until_cancelled)) as server:
        stream = server.openai.chat.completions.create(
            model="base", messages=[{"role": "user", "content": "x"}], stream=True
        )
        next(stream)
        silent = [connected(server) for _ in range(6)]
        wait_for(lambda: everything(silent[0]) == b"")
        assert not server.service.asked[0].cancelled.is_set()
        for one in silent:
            one.close()
        stream.close()


def test_of_a_list_the_rest_is_skipped_once_a_text_has_failed(served):
    asked = len(served.service.asked)
    submit = served.service.submit

    def refuses(name, request, on_event):
        ticket = submit(name, request, on_event)
        on_event(Failed("too_long", "The prompt is too long."))
        return ticket

    served.service.submit, served.service.answer = refuses, lambda _: None
    try:
        answer = served.http.post("/v1/completions", json={"model": "base", "prompt": ["x"] * 100})
    finally:
        served.service.submit = submit
    assert answer.status_code == 400
    assert len(served.service.asked) == asked + 1


def test_a_slow_body_is_refused(serve):
    with serve(body_seconds=0.3) as server, connected(server) as connection:
        connection.sendall(post(BODY)[:-5])
        assert everything(connection).startswith(b"HTTP/1.1 408")


def test_a_body_without_end_after_a_refusal_ends_the_connection(serve):
    with serve(header_seconds=0.3) as server, connected(server) as connection:
        connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")

        def send():
            try:
                connection.sendall(b"1\r\nx\r\n")
            except OSError:
                return False
            return True

        wait_for(lambda: not send())


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_is_gone_cancels_its_reply(serve, stream):
    with serve(ScriptedService(until_cancelled)) as server:
        with connected(server) as connection:
            connection.sendall(post(STREAMED if stream else BODY))
            if stream:
                connection.recv(1)
            wait_for(lambda: server.metric('llf_replies_running{model="base"}') == 1)
        assert server.service.asked[0].cancelled.wait(120)
        wait_for(lambda: server.metric('llf_replies_running{model="base"}') == 0)
        assert server.server.open_calls == 0
        assert server.metric('llf_replies_total{ended="client_gone",model="base"}') == 1


def test_a_client_that_ends_its_stream_cancels_its_reply(serve):
    with serve(ScriptedService(until_cancelled)) as server:
        stream = server.openai.chat.completions.create(
            model="base", messages=[{"role": "user", "content": "x"}], stream=True
        )
        next(stream)
        stream.close()
        assert server.service.asked[0].cancelled.wait(120)


def endless(asked):
    """A reply of 40 parts in 10 ms, without end."""
    asked.say(Started(3, 0))
    while not asked.cancelled.wait(0.01):
        asked.say(*[Piece("x" * 10_000)] * 40)
    asked.say(finished("cancelled"))


@pytest.mark.parametrize("unread_seconds", [0.3, 60])
def test_a_client_that_does_not_read_holds_neither_memory_nor_the_engine(serve, unread_seconds):
    """Its reply is cancelled: once its connection has stood still for a while, or once its parts pile up."""
    with serve(ScriptedService(endless), unread_seconds=unread_seconds) as server, connected(server) as connection:
        connection.sendall(post(STREAMED).replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        wait_for(lambda: server.service.asked and server.service.asked[0].cancelled.is_set())
        server.service.answer = hello
        assert server.chat().json()["choices"][0]["message"]["content"] == "Hello"
        got = everything(connection)
        ended = "too slow" if b"waited for the client to read them" in got else "still"
        assert ended == ("too slow" if unread_seconds == 60 else "still")
        assert len(got) < 3 * MAX_UNREAD * 10_000
        wait_for(lambda: server.server.open_calls == 0)


def test_a_burst_of_a_reply_waits_for_a_client_that_reads(served):
    """As many parts as may wait come at once, and none is lost."""
    parts = [str(number) for number in range(MAX_UNREAD - 10)]
    served.service.answer = lambda asked: asked.say(Started(3, 0), *map(Piece, parts), finished())
    got = served.openai.chat.completions.create(model="base", messages=[{"role": "user", "content": "x"}], stream=True)
    assert [chunk.choices[0].delta.content for chunk in got if chunk.choices[0].delta.content] == parts


@pytest.mark.parametrize("stream", [False, True])
def test_a_shutdown_ends_what_does_not_end_by_itself(serve, stream):
    with serve(ScriptedService(until_cancelled), grace_seconds=0.2) as server:
        if stream:
            got = server.openai.chat.completions.create(
                model="base", messages=[{"role": "user", "content": "x"}], stream=True
            )
            assert next(got).choices[0].delta.role == "assistant"
            server.begin_stop()
            with pytest.raises(openai.APIError, match="the server is shutting down"):
                list(got)
        else:

            def stop_once_asked():
                wait_for(lambda: server.service.asked)
                server.begin_stop()

            thread = threading.Thread(target=stop_once_asked)
            thread.start()
            refused = server.chat()
            thread.join()
            assert (refused.status_code, "shutting down" in refused.text) == (503, True)
        assert server.service.asked[0].cancelled.wait(120)


def test_a_call_that_cannot_be_submitted_leaves_nothing_behind(served, monkeypatch):
    submit, submitted = served.service.submit, []

    def fails_for_the_second(name, request, on_event):
        if submitted:
            raise RuntimeError("no thread")
        submitted.append(submit(name, request, on_event))
        return submitted[0]

    served.service.answer = until_cancelled
    monkeypatch.setattr(served.service, "submit", fails_for_the_second)
    body = {"model": "base", "messages": [{"role": "user", "content": "x"}], "n": 2}
    assert served.http.post("/v1/chat/completions", json=body).status_code == 500
    assert submitted[0].cancelled.wait(120)
    assert served.server.open_calls == 0
    metrics = httpx.get(f"{served.url}/metrics", headers=served.http.headers).text  # the connection was closed
    assert 'llf_replies_waiting{model="base"} 0.0' in metrics


def test_a_shutdown_waits_for_replies(serve):
    release = threading.Event()

    def slow(asked):
        asked.say(Started(3, 0), Piece("be"))
        release.wait(120)
        asked.say(Piece("gun"), finished())

    with serve(ScriptedService(slow), grace_seconds=30) as server:
        got = server.openai.chat.completions.create(
            model="base", messages=[{"role": "user", "content": "x"}], stream=True
        )
        next(got)
        server.begin_stop()
        wait_for(lambda: not accepts(server))  # no new requests
        release.set()
        assert "".join(chunk.choices[0].delta.content or "" for chunk in got) == "begun"


def accepts(server):
    try:
        connected(server).close()
    except OSError:
        return False
    return True


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


NAMES = st.sampled_from([
    "model", "messages", "prompt", "temperature", "top_p", "top_k", "n", "stop", "seed", "stream", "stream_options",
    "logprobs", "top_logprobs", "tools", "tool_choice", "response_format", "logit_bias", "max_tokens", "echo", "role",
    "content", "type", "text", "image_url", "url", "function", "name", "arguments", "parameters", "tool_calls",
    "input", "encoding_format", "max_length",
    "chat_template_kwargs", "json_schema", "schema", "include_usage", "best_of", "user", "colour",
])  # fmt: skip
WORDS = st.sampled_from([
    "base", "user", "assistant", "system", "tool", "text", "image_url", "function", "json_schema", "auto", "required",
    "data:image/png;base64,", "{}", "[", "\N{NULL}", "\ud800", "",
])  # fmt: skip
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": WORDS, "content": VALUES}, optional={"tool_calls": VALUES}), max_size=2
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=6).flatmap(
    lambda more: st.fixed_dictionaries(
        {"model": st.just("base")}, optional={"messages": MESSAGES, "prompt": VALUES, "input": VALUES}
    ).map(lambda body: more | body)
)
ANY_BYTES = BODIES.map(lambda body: json.dumps(body).encode()) | VALUES.map(lambda one: json.dumps(one).encode())


PATHS = [f"/v1/{path}" for path in ("chat/completions", "completions", "embeddings", "score", "score/evaluation")]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(body=ANY_BYTES | st.binary(max_size=20), path=st.sampled_from(PATHS))
def test_no_body_makes_the_server_fail(served, body, path):
    served.service.answer = hello
    answer = served.http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {200, 400, 404}, (answer.text, body)
    if answer.status_code != 200:
        error = answer.json()["error"]
        assert error["message"].endswith((".", ":")) or "Expected" in error["message"]
        assert "Traceback" not in error["message"]


@pytest.mark.parametrize(
    "start",
    [
        b"\x16\x03\x01\x02\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /health HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_http_ends_the_connection(served, start):
    with connected(served) as connection:
        connection.sendall(start + b"\r\n\r\n")
        assert everything(connection)[:12] in {b"HTTP/1.1 400", b"HTTP/1.1 403", b""}
    assert httpx.get(f"{served.url}/health").status_code == 200

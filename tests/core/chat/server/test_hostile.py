"""`llf serve` with a tiny model among hostile clients."""

import http.client
import itertools
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import psutil
import pytest

from tests.core.chat.server.hostile import body, hosts, large_bodies
from tests.core.chat.server.test_serve import Process

pytestmark = [pytest.mark.long, pytest.mark.launches, pytest.mark.timeout(1800)]
HONEST = {"model": "base", "temperature": 0, "max_tokens": 24, "logit_bias": {"0": -100, "2": -100}}
QUESTIONS = [f"What is {number} and the sea?" for number in range(8)]
CLIENTS, HELD = 50, 200 << 20


@pytest.fixture(scope="module")
def served(endless_model_dir, tmp_path_factory):
    process = Process(tmp_path_factory.mktemp("serve-home"), "--name", f"base={endless_model_dir}")
    yield process
    children = process.end()
    assert process.process.returncode == 0
    assert psutil.wait_procs(children, 120)[1] == []


def ask(served, data, host=None):
    """Status and JSON of the answer to a body."""
    at = urlsplit(served.url).netloc
    connection = http.client.HTTPConnection(at, timeout=900)
    try:
        headers = {"Content-Type": "application/json", "Host": host or at}
        connection.request("POST", "/v1/chat/completions", data, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def reply(served, question):
    status, answer = ask(served, json.dumps(HONEST | {"messages": [{"role": "user", "content": question}]}))
    assert status == 200, answer
    assert answer["usage"]["completion_tokens"] == 24
    return answer["choices"][0]["message"]["content"]


def refused(status, answer):
    """Whether a request was refused with a sentence that says what is wrong with it."""
    if status not in {400, 403, 404}:
        return False
    message = answer["error"]["message"]
    return len(message) > 20 and message.endswith((".", "…")) and "Traceback" not in message


def test_200_hostile_requests_are_refused_with_what_is_wrong(served):
    expected, wrong = reply(served, QUESTIONS[0]), []
    for number in range(200):
        status, answer = ask(served, body(number))
        if not refused(status, answer) or reply(served, QUESTIONS[0]) != expected:
            wrong.append((number, body(number)[-300:], status, answer))
    for host in hosts():
        status, answer = ask(served, body(0), host)
        if status != 403 or "Host is" not in answer["error"]["message"]:
            wrong.append((host, status, answer))
    assert wrong == []


def test_an_honest_client_gets_its_replies_beside_50_hostile_ones(served):
    expected = {question: reply(served, question) for question in QUESTIONS}
    engine = served.child("llf_core.chat.worker_process")
    before = engine.memory_info().rss
    data = [*large_bodies().values(), *map(body, range(1, 24, 2))]
    numbers, ready, wrong = itertools.count(), threading.Barrier(CLIENTS + 1), []

    def attack(_):
        ready.wait()
        for number in itertools.islice(numbers, 3):
            one = data[number % len(data)]
            status, answer = ask(served, one)
            if not refused(status, answer):
                wrong.append((one[:100], status, str(answer)[:300]))

    with ThreadPoolExecutor(CLIENTS) as pool:
        attacks = [pool.submit(attack, one) for one in range(CLIENTS)]
        ready.wait()
        rounds = 0
        while not rounds or not all(one.done() for one in attacks):
            assert {question: reply(served, question) for question in QUESTIONS} == expected
            rounds += 1
        for one in attacks:
            one.result()
    assert wrong == []
    assert engine.is_running()
    assert engine.memory_info().rss - before < HELD

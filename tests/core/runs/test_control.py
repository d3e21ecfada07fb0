"""Requests: dropped in whole, seen once, taken out when answered."""

import json
import re

import pytest

from llf_core.runs import Inbox, send_request
from llf_core.runs.control import pending_requests, read_request, remove_request
from llf_core.untrusted import UnreadableError


def test_a_request_is_the_contracts_file(folder):
    request_id = send_request(folder, "stop", {"grace": 5}, by="monitor")
    (path,) = folder.control.iterdir()
    assert re.fullmatch(rf"\d{{19}}-{request_id}\.json", path.name)
    body = json.loads(path.read_text())
    assert body.pop("time") == pytest.approx(int(path.name[:19]) / 1e9)
    assert body == {"v": 1, "id": request_id, "type": "stop", "args": {"grace": 5}, "by": "monitor"}
    assert re.fullmatch(r"[0-9a-f]{8}", request_id)


def test_what_is_no_request_can_not_be_sent(folder):
    with pytest.raises(ValueError, match="Unknown request 'explode'"):
        send_request(folder, "explode")
    with pytest.raises(ValueError, match="bytes"):
        send_request(folder, "stop", {"x": "y" * 70_000})
    assert list(folder.control.iterdir()) == []


def test_each_is_seen_once_in_order_and_kill_is_left_alone(folder):
    inbox = Inbox(folder)
    assert inbox.scan() == []
    sent = [send_request(folder, kind) for kind in ("checkpoint", "kill", "stop")]
    first, last = inbox.scan()
    assert (first.id, last.id) == (sent[0], sent[2])
    assert inbox.scan() == []
    inbox.done(first)
    inbox.done(first)
    assert len(list(folder.control.iterdir())) == 2
    assert [request.type for request in pending_requests(folder)] == ["kill", "stop"]
    assert [request.type for request in Inbox(folder, ignored_types=frozenset({"stop"})).scan()] == ["kill"]


def test_files_under_way_are_not_looked_at(folder):
    (folder.control / ".1764-aa.json").write_text('{"v": 1')
    assert Inbox(folder).scan() == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"v": 2, "id": "a", "type": "stop"}', '{"v": 1, "id": "a", "type": "dance"}',
     '{"v": 1, "type": ["stop"]}', "\x00\xff", "[" * 60_000],
)  # fmt: skip
def test_garbage_is_unreadable_and_can_be_removed(folder, text):
    (folder.control / "1-a.json").write_text(text)
    (request,) = Inbox(folder).scan()
    assert (request.type, request.args) == ("unreadable", {})
    remove_request(request)
    assert list(folder.control.iterdir()) == []


def test_odd_fields_are_cut_to_size(folder):
    (folder.control / "1-a.json").write_text(
        json.dumps({"v": 1, "id": 7, "type": "stop", "args": [1], "by": "x" * 999, "time": "soon", "extra": 1})
    )
    (request,) = Inbox(folder).scan()
    assert (request.id, request.args, len(request.by), request.time) == ("7", {}, 200, 0.0)


def test_a_folder_among_the_requests_stays_and_harms_nobody(folder):
    (folder.control / "1-a.json").mkdir()
    (request,) = Inbox(folder).scan()
    assert request.type == "unreadable"
    remove_request(request)
    assert (folder.control / "1-a.json").is_dir()


def test_a_request_that_vanishes_is_no_request(folder):
    assert read_request(folder.control / "1-a.json") is None


def test_a_missing_folder_is_an_empty_one_and_is_made_when_needed(folder):
    folder.control.rmdir()
    assert Inbox(folder).scan() == []
    send_request(folder, "stop")
    assert len(Inbox(folder).scan()) == 1


def test_a_file_in_place_of_the_folder_is_named(folder):
    folder.control.rmdir()
    folder.control.touch()
    with pytest.raises(UnreadableError, match=r"control is a file\. Expected a folder"):
        send_request(folder, "stop")

"""`llf.Chat` when its engine's process really runs short of memory in mid-reply."""

from __future__ import annotations

import sys

import psutil
import pytest

from llf_widgets.chat import models as shared
from llf_widgets.chat.widget import Chat
from tests.core.chat.short_memory import ENDLESS, lift_limit, limit_to_spare, save_wide_model
from tests.widgets.chat.test_chat import page, until

pytestmark = [
    pytest.mark.launches,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of another process"),
]


def done(view):
    until(lambda: not view._writing)
    with view._lock:  # held until a reply that has ended is shown
        return view._turns[0]["replies"]


def test_a_chat_says_that_memory_was_short_and_the_next_question_is_answered(tmp_path):
    save_wide_model(tmp_path / "wide")
    view = Chat(tmp_path / "wide")
    try:
        page(view, type="settings", changes={"max_tokens": "4"})
        view.ask("one two")
        (first,) = done(view)
        assert first["state"] == "done", first["error"]
        (engine,) = view._view_models.shared.service._processes.values()
        limit_to_spare(engine.process.pid)
        page(view, type="settings", changes={"max_tokens": str(ENDLESS)})
        page(view, type="again", turn=view._turns[0]["id"], model="wide")
        (failed,) = done(view)
        assert failed["state"] == "failed"
        assert failed["error"]["message"].startswith(
            "Out of memory: the keys and values of the conversation do not fit."
        )
        assert [fix["action"] for fix in failed["error"]["fixes"]] == ["again"]
        assert failed["text"].startswith(first["text"])  # what was written stays
        assert view._models[0]["phase"] == "ready"
        page(view, type="settings", changes={"max_tokens": "4"})
        page(view, type="again", turn=view._turns[0]["id"], model="wide")
        (again,) = done(view)
        assert (again["state"], again["text"]) == ("done", first["text"])
        lift_limit(engine.process.pid)
        process = psutil.Process(engine.process.pid)
    finally:
        view.close()
        for one in shared._shared.values():
            one.service.close()
        shared._shared.clear()
    assert psutil.wait_procs([process], 30)[1] == []

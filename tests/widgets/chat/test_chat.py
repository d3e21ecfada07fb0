"""`llf.Chat` with a tiny real model in its engine process."""

from __future__ import annotations

import resource
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from llf_core.chat.conversation import Conversation
from llf_core.chat.target import TargetError
from llf_core.runs import Checkpoints
from llf_widgets.chat import models as shared
from llf_widgets.chat.replies import Writing
from llf_widgets.chat.widget import Chat
from tests.attempts import data_file, make_run, settings, trained
from tests.processes import go_on_until, signal_all, with_input_of

__all__ = ["data_file", "make_run", "settings", "trained"]

SAMPLED = {"temperature": "1", "seed": "7"}  # greedily, random weights repeat one token
pytestmark = [pytest.mark.launches, pytest.mark.usefixtures("warm_python")]


@pytest.fixture
def chat(tiny_model_dir):
    view = Chat(tiny_model_dir)
    view._receive(view, {"type": "settings", "changes": {"max_tokens": "8", **SAMPLED}}, [])
    yield view
    view.close()
    for one in shared._shared.values():
        one.service.close()
    shared._shared.clear()


def until(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def done(view):
    until(lambda: view._turns and not view._writing)
    with view._lock:  # held until a reply that has ended is shown
        return [reply for turn in view._turns for reply in turn["replies"]]


def engine_pids(view):
    """The processes of the only model: its engine, and what stands for it with `warm_python`."""
    (engine,) = view._view_models.shared.service._processes.values()
    return with_input_of(engine.process.pid)


def page(view, **content):
    view._handle_custom_msg(content, [])


def test_replies_arrive_in_updates_and_come_back_with_the_conversation(chat, tiny_model_dir):
    sent = []
    chat.send = sent.append
    page(chat, type="send", text="one two three")
    (reply,) = done(chat)
    assert reply["state"] == "done", reply["error"]
    assert reply["footer"].startswith("8 tokens, ")
    updates = [update for message in sent for update in message["updates"]]
    assert [update["sequence"] for update in updates] == list(range(1, len(updates) + 1))
    assert reply["text"].startswith("".join(update["text"] for update in updates))
    assert chat._models[0]["phase"] == "ready"

    page(chat, type="again", turn=chat._turns[0]["id"], model=chat.models[0])
    (again,) = done(chat)
    assert again["version"] == [2, 2]
    assert again["text"] == reply["text"]  # the same seed
    page(chat, type="edit", turn=chat._turns[0]["id"], text="the sea")
    until(lambda: chat._turns[0]["text"] == "the sea")
    done(chat)
    page(chat, type="version", turn=chat._turns[0]["id"], step=-1)
    assert chat._turns[0]["text"] == "one two three"
    assert chat._turns[0]["version"] == [1, 2]

    other = Chat(tiny_model_dir)  # the cell is run again, or its kernel was restarted
    assert other._turns == chat._turns
    assert other._settings == chat._settings
    until(lambda: other._models == chat._models)  # the same engine, which tells its memory after each reply
    text = other._repr_mimebundle_()[0]["text/html"]
    assert "one two three" in text
    page(other, type="new")
    assert other._turns == []
    other.close()


def test_a_reply_is_stopped_and_what_was_written_is_kept(chat):
    page(chat, type="start")
    until(lambda: chat._models[0]["phase"] == "ready")
    engine = engine_pids(chat)
    page(chat, type="settings", changes={"max_tokens": "900"})
    take, begun = chat._writer._on_event, []

    def take_first(conversation, writing, event):
        take(conversation, writing, event)
        if writing.text:
            begun.append(writing)

    chat._writer._on_event = take_first
    signal_all(engine, signal.SIGSTOP)  # the reply cannot end before it is stopped
    page(chat, type="send", text="the sea, the ship")
    go_on_until(lambda: begun, engine)
    page(chat, type="send", text="too early")
    assert "still being written" in chat._note
    page(chat, type="stop")
    signal_all(engine, signal.SIGCONT)
    (reply,) = done(chat)
    assert reply["note"] == "Stopped."
    assert reply["text"]
    data, _ = chat._repr_mimebundle_()
    assert data["text/plain"].endswith("\nStopped.")
    assert "\nStopped.</p>" in data["text/html"]


def test_a_reply_that_finds_the_disk_full_stays_and_is_saved_with_the_next_message(chat):
    page(chat, type="send", text="one two three")
    done(chat)
    page(chat, type="settings", changes={"max_tokens": "64"})
    before, engine = resource.getrlimit(resource.RLIMIT_FSIZE), engine_pids(chat)
    signal_all(engine, signal.SIGSTOP)  # the reply cannot end before
    page(chat, type="send", text="the sea")
    resource.setrlimit(resource.RLIMIT_FSIZE, (chat.conversation.file.stat().st_size, before[1]))  # as a full disk
    try:
        signal_all(engine, signal.SIGCONT)
        _, reply = done(chat)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (reply["state"], reply["note"]) == ("done", "The reply was cut at the maximum number of tokens.")
    assert reply["text"]
    assert "could not be saved" in chat._note
    assert Conversation(chat.conversation.file).messages[reply["id"]].text() == ""
    page(chat, type="send", text="the ship")
    done(chat)
    assert Conversation(chat.conversation.file).messages[reply["id"]].text() == reply["text"]


def test_a_question_that_finds_the_disk_full_waits_for_no_reply(tiny_model_dir, tmp_path):
    shutil.copytree(tiny_model_dir, tmp_path / "other")
    view = Chat(tiny_model_dir, tmp_path / "other")
    view.conversation.rename("full")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for space in range(0, 4000, 40):
        count = len(view.conversation.messages)
        resource.setrlimit(resource.RLIMIT_FSIZE, (view.conversation.file.stat().st_size + space, before[1]))
        try:
            with pytest.raises(OSError, match="File too large"):
                view.ask("one two")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert view._writing == {}
        if len(view.conversation.messages) - count == 3:
            break  # the question and both replies were written, but not which one is shown
    assert len(view.conversation.messages) - count == 3
    view.close()


def test_a_prompt_that_is_too_long_offers_to_leave_out_old_turns(chat):
    page(chat, type="send", text="the sea " * 150)
    done(chat)
    page(chat, type="send", text="the ship " * 150)
    failed = done(chat)[1]
    assert "tokens" in failed["error"]["message"]
    assert [fix["action"] for fix in failed["error"]["fixes"]] == ["shorten", "edit"]
    page(chat, type="fix", turn=chat._turns[1]["id"], model=chat.models[0], fix="shorten")
    answered = done(chat)[1]
    assert answered["state"] == "done", answered["error"]
    assert "Left out: 1 oldest turn." in answered["note"]


def test_a_killed_engine_is_a_sentence_and_the_next_question_starts_another(chat):
    page(chat, type="send", text="the sea")
    done(chat)
    (process,) = chat._view_models.shared.service._processes.values()
    page(chat, type="settings", changes={"max_tokens": "900"})
    signal_all(engine_pids(chat), signal.SIGSTOP)  # the reply cannot end before
    page(chat, type="send", text="the land")
    process._process.kill()
    *_, reply = done(chat)
    assert reply["state"] == "failed"
    assert [fix["action"] for fix in reply["error"]["fixes"]] == ["again"]
    page(chat, type="settings", changes={"max_tokens": "4"})
    page(chat, type="fix", turn=chat._turns[1]["id"], model=chat.models[0], fix="again")
    *_, reply = done(chat)
    assert reply["state"] == "done", reply["error"]


def test_results_of_calls_go_back_to_the_model(chat, tiny_model_dir):
    (model,) = chat.models
    conversation = chat.conversation
    asked = conversation.ask("What is the weather?", [model])[model]
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}
    conversation.add("assistant", parent=asked.id, target=model, tool_calls=[call], finish_reason="tool_calls")
    page(chat, type="open")
    (waiting,) = chat._turns[0]["replies"]
    assert waiting["calls"] == [{"id": "c1", "name": "weather", "arguments": '{"city": "Ulm"}', "result": None}]
    page(chat, type="results", reply=waiting["id"], results={"c1": "Rain."})
    (reply,) = done(chat)
    assert reply["state"] == "done", reply["error"]
    assert reply["footer"].startswith("8 tokens, ")
    assert [one["result"] for one in reply["calls"]] == ["Rain."]


def test_a_cell_that_waits_gets_the_reply_after_a_call_of_its_function(chat):
    def weather(city):
        time.sleep(0.3)  # nothing is being written meanwhile
        return f"Rain in {city}."

    (model,) = chat.models
    chat._tools.functions = {"weather": weather}
    conversation = chat.conversation
    asked = conversation.ask("What is the weather?", [model])[model]
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Ulm"}'}}
    asking = conversation.add("assistant", parent=asked.id, target=model)
    chat._end(Writing(asking.id, model, calls=[call], reason="tool_calls", state="done"))
    reply = chat.wait()[model]
    assert (reply.role, reply.tool_calls, reply.finish_reason) == ("assistant", (), "length")
    assert [one["result"] for one in chat._turns[0]["replies"][0]["calls"]] == ["Rain in Ulm."]


class Output:
    """An output that shows a chat, and the texts that it was given."""

    def __init__(self):
        self.texts = []

    def update(self, data, **_):
        self.texts.append(data["text/plain"])


def end_with_a_call(chat, function):
    """Let a reply end with a call of the only function of the cell, and wait until that was called."""
    (model,) = chat.models
    chat._tools.functions = {"weather": function}
    asked = chat.conversation.ask("What is the weather?", [model])[model]
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    asking = chat.conversation.add("assistant", parent=asked.id, target=model)
    chat._end(Writing(asking.id, model, calls=[call], text="Wait.", reason="tool_calls", state="done"))
    until(lambda: not chat._calling)


def test_a_new_chat_that_begins_while_a_function_is_called_gets_nothing_of_the_old_one(chat):
    old = chat.conversation
    end_with_a_call(chat, chat.new_chat)
    assert chat.conversation is not old
    assert chat._turns == []
    assert chat._note == ""
    assert chat._writing == {}


def test_a_saved_notebook_has_a_reply_whose_call_gets_no_answer(chat):
    output = Output()
    page(chat, type="open", keeps_view=True)
    chat._displays.append(output)

    def lose():
        chat.conversation.file.unlink()

    end_with_a_call(chat, lose)
    assert "conversation" in chat._note
    until(lambda: output.texts)
    assert "Wait." in output.texts[-1]


def test_the_form_for_kept_replies_has_a_model_that_was_not_removed(chat, tiny_model_dir, tmp_path):
    page(chat, type="send", text="one two three")
    (reply,) = done(chat)
    page(chat, type="keep", turn=chat._turns[0]["id"], model=reply["model"], what="example")
    assert repr(str(tiny_model_dir)) in chat._kept[0]["code"]
    other = shutil.copytree(tiny_model_dir, tmp_path / "other")
    chat.add(other)
    chat.remove(reply["model"])
    assert repr(str(other)) in chat._kept[0]["code"]


def test_a_run_that_goes_on_answers_with_its_newest_checkpoint(trained, tmp_path):
    folder, _ = trained()
    shutil.rmtree(folder.output)
    last = Checkpoints(folder).path(6)
    shutil.move(last, tmp_path / "later")
    view = Chat(f"{folder.id}@base", folder)
    base, tuned = view.models
    assert view._models[1]["about"].startswith("adapter of step 4")
    assert [one["run"] for one in view._models] == [False, True]
    page(view, type="newest", model=tuned)
    assert view._note == f"{tuned} has the newest weights."
    shutil.move(tmp_path / "later", last)
    page(view, type="newest", model=tuned)
    assert view.models == [base, tuned]
    assert view._models[1]["about"].startswith("adapter of step 6")
    page(view, type="newest", model=base)
    assert "does not stand for a run" in view._note
    page(view, type="checkpoint", model=tuned)
    assert "is not running" in view._note
    view.close()


def test_a_removed_model_is_released_even_if_the_view_cannot_show_the_others(chat, tiny_model_dir, tmp_path):
    other = chat.add(shutil.copytree(tiny_model_dir, tmp_path / "other"))
    service = chat._view_models.shared.service
    service.remove(chat.models[0])  # as another view does that closes the service
    with pytest.raises(TargetError, match="No model is called"):
        chat.remove(other)
    assert not service.targets


def test_the_call_that_opens_a_chat_again_names_the_models_that_it_has(tiny_model_dir, tmp_path):
    other = shutil.copytree(tiny_model_dir, tmp_path / "other")
    view = Chat(tiny_model_dir, other)
    view.remove(view.models[0])
    assert view._repr_mimebundle_()[0]["text/plain"].startswith(f"llf.Chat({str(other)!r})")
    view.close()


def test_a_question_that_is_no_text_is_a_sentence(chat):
    with pytest.raises(TypeError, match=r"The question is None\. Expected a text\."):
        chat.ask(None)
    with pytest.raises(ValueError, match="'None' does not stand for a run"):
        chat.use_newest(None)
    assert len(chat.conversation.messages) == 0


def test_a_closed_chat_asks_nothing_and_takes_no_model(chat, tiny_model_dir):
    messages = len(chat.conversation.messages)
    chat.close()
    with pytest.raises(ValueError, match=r"The chat is closed\. Run its cell again\."):
        chat.ask("one two three")
    with pytest.raises(ValueError, match="The chat is closed"):
        chat.add(tiny_model_dir)
    assert (chat.models, chat.wait(), len(chat.conversation.messages)) == ([], {}, messages)


def test_what_is_no_model_is_refused_before_a_view_opens(tmp_path):
    with pytest.raises(TargetError, match="no-such-run"):
        Chat("no-such-run")
    with pytest.raises(ValueError, match="Expected 1 to 4"):
        Chat()


def test_two_views_of_one_conversation_ask_one_after_the_other_and_show_the_same(chat, tiny_model_dir):
    page(chat, type="send", text="one two three")
    done(chat)
    other = Chat(tiny_model_dir)
    try:
        page(other, type="send", text="the sea")
        done(other)
        page(chat, type="send", text="and then")
        done(chat)
        page(other, type="open")
        assert [turn["text"] for turn in chat._turns] == ["one two three", "the sea", "and then"]
        assert other._turns == chat._turns
        # both at once: two branches of one question's reply, of which each view shows its own; neither is lost
        page(chat, type="settings", changes={"max_tokens": "40"})
        page(chat, type="send", text="left")
        page(other, type="send", text="right")
        done(chat)
        done(other)
        page(chat, type="open")
        page(other, type="open")
        texts = {message.content for message in chat.conversation.messages.values() if message.role == "user"}
        assert {"left", "right"} <= texts
        assert not chat._note
        assert not other._note
    finally:
        other.close()


def test_a_wait_goes_on_from_a_call_to_the_reply_after_it(chat):
    def answered():  # as the thread of the call does
        with chat._lock:
            chat._writer.writing["next"] = Writing("next", chat.models[0])
        chat._calling.discard("call")

    class Calls(set):
        def __bool__(self):
            if not begun:
                begun.append(threading.Thread(target=answered))
                begun[0].start()
                begun[0].join(0.5)  # between the look at the replies and the one at the calls
            return len(self) > 0

    begun, chat._calling = [], Calls({"call"})
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(chat.wait)
        with pytest.raises(TimeoutError):
            waits.result(timeout=1)
        begun[0].join()
        assert not chat._calling
        chat._writer.writing.clear()
        assert waits.result(timeout=60) == {}


def test_closing_the_view_ends_the_wait(chat, monkeypatch):
    class Silent:
        """A ticket of an engine that never says how its reply ends, such as one that was killed."""

        def cancel(self):
            pass

    (name,) = chat.models
    chat._view_models.shared.service.submit = lambda *_: Silent()
    page(chat, type="send", text="one two three")
    until(lambda: chat._writing)
    looked = threading.Event()

    def sleep(seconds):
        looked.set()
        time.sleep(seconds)

    monkeypatch.setattr("llf_widgets.chat.session.time", SimpleNamespace(sleep=sleep))
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(chat.wait)
        assert looked.wait(60)  # it waits
        with pytest.raises(TimeoutError):
            waits.result(timeout=0.5)
        chat.close()
        (reply,) = waits.result(timeout=60).items()
    assert (reply[0], reply[1].content) == (name, "")

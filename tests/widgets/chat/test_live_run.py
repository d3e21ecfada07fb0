"""A chat with a run while its real trainer goes on."""

from __future__ import annotations

import os
import shutil
import threading
import time

import pytest

from llf_core.chat.request import ChatRequest, ChatSampling, Finished
from llf_core.launch import launch
from llf_core.runs import Checkpoints, delete_run, status
from llf_core.runs.process import ProcessId
from llf_widgets.chat import models as shared
from llf_widgets.chat.models import POLL_SECONDS, wait_for_checkpoint
from llf_widgets.chat.widget import Chat
from tests.attempts import data_file, make_run, settings, trained

__all__ = ["data_file", "make_run", "settings", "trained"]

pytestmark = [pytest.mark.launches, pytest.mark.usefixtures("warm_python")]
ENDLESS = {"max_steps": 100_000, "save_steps": 100_000, "lr_scheduler_type": "constant", "learning_rate": 1e-2}
LEARNED = 20
"""Step from which the replies differ from those of the base."""
TEMPERATURE = 0.2
"""Greedily, random weights repeat one token; at 1, an adapter moves the flat logits of a tiny model too little."""
SAMPLED = {"max_tokens": "16", "temperature": str(TEMPERATURE), "seed": "7"}


@pytest.fixture(autouse=True)
def no_engine_stays():
    yield
    for one in shared._shared.values():
        one.service.close()
    shared._shared.clear()


def until(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def page(view, **content):
    view._handle_custom_msg(content, [])


def ask(view, text):
    """The texts of all replies to a question."""
    view.ask(text)
    replies = view.wait()
    assert [*replies] == view.models
    assert {one.finish_reason for one in replies.values()} <= {"length", "stop"}, replies
    return {name: reply.text() for name, reply in replies.items()}


def text_of(view, target, question):
    """The reply of a target to a question that begins a conversation."""
    view.new_chat()
    name = view._view_models.shared.service.add(target).name
    messages = ({"role": "user", "content": question},)
    request = ChatRequest(messages, sampling=ChatSampling(temperature=TEMPERATURE, seed=7), max_tokens=16)
    pieces = view._view_models.shared.service.reply(name, request)
    view._view_models.shared.service.remove(name)
    return "".join(getattr(one, "text", "") for one in pieces)


def test_a_live_run_answers_with_a_checkpoint_made_on_request_and_trains_on_as_alone(settings):
    run = launch(settings | ENDLESS)
    view = Chat(f"{run.id}@base")
    page(view, type="settings", changes=SAMPLED)
    plain = ask(view, "one two three")
    until(lambda: (run.status().step or 0) >= LEARNED or run.status().has_ended)
    page(view, type="add", target=run.id)
    assert "has neither a result nor a checkpoint yet" in view._note
    assert f"llf runs checkpoint {run.id}" in view._note

    run.checkpoint(wait=True)
    (first,) = Checkpoints(run.folder).list()
    tuned = view.add(run)
    assert view._models[1]["about"].startswith(f"adapter of step {first}, ")
    assert [one["live"] for one in view._models] == [False, True]
    view.new_chat()
    replies = ask(view, "one two three")
    assert replies[view.models[0]] == plain[view.models[0]] != replies[tuned]
    step = run.status().step
    until(lambda: run.status().step > step)  # the reply came while it trained

    engine = view._view_models.shared.service._processes.copy()
    page(view, type="checkpoint", model=tuned)
    until(lambda: "answers with" in view._note)
    second = Checkpoints(run.folder).list()[-1]
    assert second > first
    assert view._note == f"{tuned} answers with adapter of step {second}."
    assert view._models[1]["about"].startswith(f"adapter of step {second}, ")
    assert view._view_models.shared.service._processes == engine  # the base is not loaded again
    view.new_chat()
    assert ask(view, "one two three")[tuned] == text_of(view, f"{run.id}@{second}", "one two three")
    assert run.state == "running"

    run.stop(wait=True)
    last = run.status().step
    again = Chat(f"{run.id}@base", run)  # the cell is run again
    assert again.models == view.models
    for one in (again, view):
        until(lambda one=one: one._models[1]["about"].startswith(f"adapter of step {last}, "))
    again.close()
    page(view, type="newest", model=tuned)
    assert view._note == f"{tuned} has the newest weights."
    page(view, type="checkpoint", model=tuned)
    assert "is not running" in view._note
    alone = launch(settings | ENDLESS | {"max_steps": second})
    alone.wait(progress=False)
    losses = [one.metrics()["loss"].dropna().tolist()[:second] for one in (run, alone)]
    assert losses[0] == losses[1]
    assert len(losses[0]) == second

    ask(view, "the sea")
    delete_run(run.id)
    page(view, type="newest", model=tuned)
    assert f"No model is called '{run.id}'" in view._note
    ask(view, "the ship")  # its weights are loaded
    view.close()


def test_a_checkpoint_that_its_run_has_removed_is_a_sentence_and_the_newest_weights_answer(trained):
    folder, _ = trained()
    shutil.rmtree(folder.output)
    later = folder.path / "later"
    shutil.move(Checkpoints(folder).path(6), later)
    view, other = Chat(folder), Chat(folder)
    (model,) = view.models
    shutil.move(later, Checkpoints(folder).path(6))
    Checkpoints(folder).prune(1)  # as the trainer does with each checkpoint that it saves
    page(view, type="settings", changes=SAMPLED)
    view.ask("one two three")
    failed = view.wait()[model]
    assert failed.finish_reason == "failed"
    assert "No adapter at" in failed.usage["error"]["message"]
    assert failed.usage["error"]["what_to_do"] == ("The run keeps only its last checkpoints. Use its newest weights.")
    other.add(f"{folder.id}@6")
    page(other, type="newest", model=model)
    assert other._note == f"{model} answers with adapter of step 6."
    for one in (other, view):
        until(lambda one=one: one._models[0]["about"].startswith("adapter of step 6"))
        one.new_chat()
    page(view, type="newest", model=model)
    assert view._note == f"{model} has the newest weights."
    page(other, type="settings", changes=SAMPLED)
    replies = ask(other, "one two three")
    assert len(set(replies.values())) == 1
    assert ask(view, "one two three")[model] == replies[model]
    assert [turn["replies"][0]["text"] for turn in view._turns] == [replies[model]]
    view.close()
    other.close()


def test_a_requested_checkpoint_waits_for_the_reply_that_is_being_written(trained, tmp_path):
    folder, _ = trained()
    shutil.rmtree(folder.output)
    last = Checkpoints(folder).path(6)
    shutil.move(last, tmp_path / "later")
    status.begin_attempt(folder, 2)
    status.update(folder, state="running", **ProcessId.of(os.getpid()).json())
    view = Chat(folder)
    (model,) = view.models
    view._view_models.shared.service.submit = lambda *_: None
    view.ask("one two three")
    page(view, type="checkpoint", model=model)
    requested = view._note
    assert requested.startswith(f"Checkpoint of {model} requested.")
    shutil.move(tmp_path / "later", last)
    time.sleep(3 * POLL_SECONDS)  # it is found
    assert view._note == requested
    (writing,) = view._writing.values()
    writing.take(Finished("stop", 1, 1, 0, 1.0, 1.0))
    view._end(writing)
    until(lambda: "answers with" in view._note)
    assert view._note == f"{model} answers with adapter of step 6."
    view.close()


def test_a_closed_chat_waits_for_no_checkpoint(trained):
    folder, _ = trained()
    shutil.rmtree(folder.output)
    status.begin_attempt(folder, 2)
    status.update(folder, state="running", **ProcessId.of(os.getpid()).json())
    view = Chat(folder)
    page(view, type="checkpoint", model=view.models[0])
    requested = view._note
    (waiting,) = (one for one in threading.enumerate() if one.name == "llf-chat-checkpoint")
    view.close()
    waiting.join(20 * POLL_SECONDS)
    assert not waiting.is_alive()
    assert view._note == requested


def test_a_run_that_ends_before_its_next_checkpoint_is_followed_to_its_result(trained):
    folder, _ = trained()
    assert wait_for_checkpoint(folder, 6, 60)
    shutil.rmtree(folder.output)
    assert not wait_for_checkpoint(folder, 6, 60)

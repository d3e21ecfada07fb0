from __future__ import annotations

import json

import pytest

from llf_core import runs
from llf_core.config import RunConfig
from llf_core.runs.files import replace_file


@pytest.fixture
def change(jp_fetch):
    """Changes a run's meta: `(status, answer)`."""

    async def send(run_id, body):
        data = body if isinstance(body, str) else json.dumps(body)
        try:
            response = await jp_fetch("llf", "api", "runs", run_id, "meta", method="PATCH", body=data)
        except Exception as error:  # noqa: BLE001 - tornado's own, with the response in it
            return error.code, json.loads(error.response.body)
        return response.code, json.loads(response.body)

    return send


async def test_name_tags_and_note_are_changed_by_revision(change, make_run):
    folder = make_run("old", state="finished")
    code, meta = await change(folder.id, {"revision": 1, "name": "new", "tags": ["a", "b"], "note": "<b>x</b>" * 1000})
    assert (code, meta["revision"], meta["name"], meta["tags"]) == (200, 2, "new", ["a", "b"])
    assert runs.read_meta(folder)["note"] == "<b>x</b>" * 1000
    code, answer = await change(folder.id, {"revision": 1, "name": "newer"})
    assert (code, "another view" in answer["message"]) == (409, True)
    assert runs.read_meta(folder)["name"] == "new"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "The body is not JSON."),
        ([], "Expected a JSON object"),
        ({"name": "x"}, "revision is not an integer"),
        ({"revision": True, "name": "x"}, "revision is not an integer"),
        ({"revision": 1}, "No change was given. Expected name, tags or note."),
        ({"revision": 1, "state": "finished"}, "Unknown field 'state'. Expected name, tags or note."),
        ({"revision": 1, "name": " "}, "name is blank. Expected 1 to 200 characters."),
        ({"revision": 1, "name": "x" * 201}, "name is not a string of at most 200 characters."),
        ({"revision": 1, "note": 3}, "note is not a string of at most 20,000 characters."),
        ({"revision": 1, "tags": "a"}, "tags is not a list of at most 20 strings"),
        ({"revision": 1, "tags": [""]}, "tags is not a list of at most 20 strings"),
        ({"revision": 1, "tags": ["a"] * 21}, "tags is not a list of at most 20 strings"),
    ],
)
async def test_a_bad_change_is_a_sentence(change, make_run, body, said):
    folder = make_run(state="finished")
    code, answer = await change(folder.id, body)
    assert (code, answer["message"].startswith(said)) == (400, True)
    assert runs.read_meta(folder)["revision"] == 1


async def test_a_large_change_is_refused(change, make_run):
    code, _ = await change(make_run().id, {"revision": 1, "note": "x" * 90_000})
    assert code == 413


async def test_adapters_are_those_of_finished_runs(ask, make_run):
    done, without, going = (make_run(name, state=state) for name, state in
                            (("done", "finished"), ("without", "finished"), ("stopped", "stopped")))  # fmt: skip
    for folder in (done, going):
        folder.output.mkdir()
        (folder.output / "adapter_config.json").write_text('{"r": 8}')
        (folder.output / "weights").write_bytes(bytes(100))
    code, answer = await ask("adapters")
    assert (code, answer["total"]) == (200, 1)
    (found,) = answer["adapters"]
    assert (found["run"], found["name"], found["rank"], found["bytes"]) == (done.id, "done", 8, 108)
    assert (await ask("adapters", params={"offset": "1"}))[1]["adapters"] == []
    assert without.id != done.id


async def test_details_of_a_run(ask, make_run):
    folder = make_run("demo", state="finished", step=2, total=2)
    folder.config.write_text("learning_rate: 0.001\n")
    writer = runs.RunWriter(folder)
    writer.metric(1, {"loss": 2.0, "learning_rate": 1e-4})
    writer.metric(2, {"loss": float("nan")})
    writer.event("warning", message="w" * 5000)
    writer.event("finding", rule="slower", message="It is slower.", fix="Look.")
    writer.sample(step=2, kind="answer", prompt="Hi?", text="Yo.", of="tuned")
    folder.log.write_text("one\ntwo\n")
    code, answer = await ask("runs", folder.id, params={"details": "1"})
    assert code == 200
    assert answer["chart"] == {
        "title": "Loss",
        "form": "number",
        "lines": {"loss": [[1, 2], [2.0, None]], "eval_loss": [[], []]},
    }
    assert answer["numbers"]["learning_rate"] == 1e-4
    assert [event["type"] for event in answer["events"]] == ["warning", "finding"]
    assert "fix" not in answer["events"][1]  # there is nothing to do about a run that has ended
    assert len(answer["events"][0]["message"]) == 2000
    assert answer["answers"] == [{"prompt": "Hi?", "step": 2, "text": "Yo."}]
    assert answer["log"] == ["one", "two"]
    assert answer["config"]["learning_rate"] == "1e-3"  # as the form writes it
    assert "details" not in (await ask("runs", folder.id))[1]


async def test_details_parse_the_config_once(ask, make_run, monkeypatch):
    parsed, load = [], RunConfig.load
    monkeypatch.setattr(RunConfig, "load", lambda source: parsed.append(source) or load(source))
    folder = make_run(state="finished")
    replace_file(folder.config, b"dataset: llf_demo\n")
    folder.output.mkdir()
    answers = [(await ask("runs", folder.id, params={"details": "1"}))[1] for _ in range(3)]
    assert answers[0]["trained"]["servers"] is not None
    assert parsed == [folder.config]
    replace_file(folder.config, b"dataset: llf_demo\nlearning_rate: 0.5\n")
    assert (await ask("runs", folder.id, params={"details": "1"}))[1]["config"]["learning_rate"] == "0.5"
    assert len(parsed) == 2


async def test_details_say_what_a_run_does_after_its_last_step(ask, make_run, live_process):
    folder = make_run("demo", state="running", step=3, total=4, **live_process)
    writer = runs.RunWriter(folder)
    writer.event("phase", name="first step")

    async def doing():
        answer = (await ask("runs", folder.id, params={"details": "1"}))[1]
        return answer["doing"], answer["row"]["remaining"]

    assert (await doing())[0] == ""
    writer.status(step=4, step_seconds=2.0)
    assert await doing() == ("All steps are done. Evaluating or saving the result.", None)
    writer.event("phase", name="evaluation")
    assert await doing() == ("Training is done. Evaluating the model.", None)
    writer.event("phase", name="saving")
    assert await doing() == ("Training is done. Saving the result.", None)
    writer.event("phase", name="predictions")
    assert await doing() == ("The result is saved. Answering the evaluation data.", None)
    writer.close("finished")
    assert (await doing())[0] == ""


async def test_no_server_loads_the_result_of_a_run_that_ended_without_one(ask, make_run, live_process):
    folder = make_run("demo", state="running", step=1, total=4, **live_process)
    folder.config.write_text("model_name_or_path: org/base\nstage: sft\nfinetuning_type: lora\ndataset: llf_demo\n")

    async def details():
        answer = (await ask("runs", folder.id, params={"details": "1"}))[1]
        return answer["row"]["weights"], answer["trained"]["servers"]

    weights, servers = await details()  # what its result will be
    assert weights is False
    assert [one["server"] for one in servers["verdicts"]] == ["vLLM", "llama.cpp", "Ollama"]
    runs.status.update(folder, state="failed")
    assert await details() == (False, None)
    folder.output.mkdir()
    runs.RunWriter(folder).event("state", state="finished")
    weights, servers = await details()
    assert weights is True
    assert servers is not None

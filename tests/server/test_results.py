"""Evaluations and exports in the details of a run, and the download of an export."""

from __future__ import annotations

import io
import json
import shutil
import zipfile

import pytest

from llf_core.runs.evaluations import (
    VERDICTS,
    VERSION,
    EvaluatedData,
    EvaluatedTarget,
    EvaluationWriter,
    JudgedPair,
    add_verdict,
)
from llf_core.runs.exports import FILE, RecordedExport, record_export
from llf_widgets.server.results import key_of

MADE = "2026-11-27T12:00:00+00:00"


@pytest.fixture
def run(make_run):
    return make_run("demo", state="finished", step=4)


def export(run, folder, **changes):
    noted = RecordedExport(str(folder), **{"format": "gguf", "made": MADE, "passed": True, "bytes": 7} | changes)
    record_export(run, noted)
    return key_of(noted)


async def details(ask, run):
    code, answer = await ask("runs", run.id, params={"details": "1"})
    assert code == 200
    return answer


async def test_exports_are_listed_and_downloaded_below_the_run_only(ask, jp_fetch, run, tmp_path):
    inside, elsewhere, link = run.path / "exports" / "a b", tmp_path / "x\u202ey", run.path / "link"
    for folder in (inside, elsewhere):
        folder.mkdir(parents=True)
        (folder / "model.gguf").write_text("weights")
    link.symlink_to(elsewhere)
    gone = export(run, tmp_path / "gone", made=f"{MADE}0", passed=False, step=4)
    keys = [export(run, place) for place in (inside, elsewhere, link, run.path)]
    for odd in ({"folder": 3}, {"passed": "yes"}, {"bytes": True}, {"step": "4"}, {"folder": "a\0b"}):
        line = {"folder": "x", "format": "gguf", "made": MADE, "passed": True} | odd
        with (run.path / FILE).open("a") as file:
            file.write(json.dumps(line) + "\n")

    listed = (await details(ask, run))["exports"]
    assert [one["folder"].split("/")[-1] for one in listed] == [
        "a\\x00b", run.path.name, "link", "x\\u202ey", "a b", "gone",
    ]  # fmt: skip
    assert [one["there"] for one in listed] == [False, True, True, True, True, False]
    assert [one["key"] for one in listed] == ["", "", "", "", keys[0], ""]
    assert listed[-2] | {"key": ""} == {
        "format": "gguf", "made": MADE, "step": None, "passed": True, "bytes": 7, "folder": "exports/a b",
        "there": True, "key": "",
    }  # fmt: skip
    assert (listed[-1]["passed"], listed[-1]["step"]) == (False, 4)

    response = await jp_fetch("llf", "api", "runs", run.id, "exports", f"{keys[0]}.zip")
    name = f"{run.id}-a-b"
    assert response.headers["Content-Disposition"] == f'attachment; filename="{name}.zip"'
    with zipfile.ZipFile(io.BytesIO(response.body)) as archive:
        assert {one: archive.read(one) for one in archive.namelist()} == {f"{name}/model.gguf": b"weights"}
    said = {"message": "The run's folder has no such export. Export it again."}
    for key in (*keys[1:], gone, "0" * 16):
        assert await ask("runs", run.id, "exports", f"{key}.zip") == (404, said)
    shutil.rmtree(inside)
    assert await ask("runs", run.id, "exports", f"{keys[0]}.zip") == (404, said)
    assert (await details(ask, run))["exports"][-2]["there"] is False


async def test_evaluations_are_listed_with_their_numbers(ask, run):
    metrics = [
        {"name": "f1", "label": "F1", "value": 0.5, "count": 3, "unit": "%", "higher_is_better": True},
        {"name": "loss", "label": "Loss", "value": 1.25, "count": 3, "unit": "nats", "higher_is_better": False},
    ]
    value = {
        "version": VERSION, "made": MADE, "target": {"name": "demo", "label": "adapter of step 4", "run": run.id,
        "step": 4, "base": "b", "weights": "w"}, "data": {"names": ["a", "b"], "fingerprint": "f", "examples": 3,
        "unusable": 0}, "settings": {}, "settings_key": "s", "metrics": metrics, "seconds": 1.0, "tokens": 5,
    }  # fmt: skip
    assert (await details(ask, run))["evaluations"] == []
    first = run.evaluations / "20261127-120000-0123abcd"
    first.mkdir(parents=True)
    (first / "evaluation.json").write_text(json.dumps(value))
    shown = {
        "made": MADE,
        "target": "adapter of step 4",
        "data": "a, b",
        "examples": 3,
        "metrics": [{"label": "F1", "text": "50.0 %"}, {"label": "Loss", "text": "1.250"}],
        "judged": [],
        "problem": "",
    }
    assert (await details(ask, run))["evaluations"] == [shown]
    (run.evaluations / "20261127-130000-0123abcd").mkdir()
    listed = (await details(ask, run))["evaluations"]
    assert (listed[0]["problem"], listed[1]) == ("evaluation.json is missing.", shown)


async def test_the_win_rate_of_a_judge_follows_its_verdicts(ask, run):
    target = EvaluatedTarget("demo", "adapter of step 4", run.id, 4, "b", "w")
    with EvaluationWriter(run, target, EvaluatedData(("a",), "f", 12), {}) as writer:
        result = writer.finish([], 1.0, 1)

    def judge(outcomes, base, first=0):
        for index, outcome in enumerate(outcomes, first):
            said = JudgedPair("a", index, "p", "key", "judge\u202e", (outcome, outcome), ("", ""), base, f"demo@{base}")
            add_verdict(result, said)

    async def judged():
        ((one,),) = [(each,) for each in (await details(ask, run))["evaluations"]]
        return one["judged"]

    assert await judged() == []
    judge(["win"] * 9, "base")
    judge(["lose"] * 12, "other")
    assert [(one["base"], one["text"], one["verdict"]) for one in await judged()] == [
        ("demo@base", "100 % (70 % to 100 %)", "too few examples"), ("demo@other", "0 % (0 % to 24 %)", "worse"),
    ]  # fmt: skip
    judge(["tie"] * 3, "base", first=9)  # while the folder of the evaluations stays as it is
    judge([None] * 12, "other")
    (one,) = await judged()
    assert one == {"judge": "judge", "base": "demo@base", "text": "88 % (71 % to 100 %)", "verdict": "better"}
    (result.folder / VERDICTS).unlink()
    (result.folder / VERDICTS).symlink_to("/dev/null")
    assert await judged() == []

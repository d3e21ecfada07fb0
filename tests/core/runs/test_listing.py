"""Lists of runs: order, pages, filters, and folders that are broken."""

import json
import os
import shutil
from types import SimpleNamespace

import pytest

from llf_core.runs import (
    Checkpoints,
    RunReader,
    RunWriter,
    active_runs,
    create_run,
    delete_run,
    free_bytes,
    home,
    list_runs,
    listing,
    status,
    update_meta,
)
from llf_core.runs import checkpoints as checkpoints_module
from llf_core.runs.config_file import read_config
from llf_core.runs.listing import read_row
from llf_core.runs.process import ProcessId, boot_id, host
from llf_core.runs.run_index import RunIndex


@pytest.fixture
def runs():
    """Three runs, oldest first."""
    made = [
        create_run("dataset: sums\nmodel_name_or_path: tiny\n", "alpha"),
        create_run("model_name_or_path: 'smol: lm'\ndataset: [a, b]\nstage: sft\nfinetuning_type: lora\n", "gamma"),
        create_run("model_name_or_path: null\n# dataset: no\n", "beta"),
    ]
    for number, folder in enumerate(made):
        target = folder.path.with_name(f"20261124-14253{number}-{folder.id.split('-')[2]}")
        folder.path.rename(target)
        made[number] = type(folder)(target)
    return made


def names(page):
    return [row.name for row in page.rows]


def test_newest_first_and_pages(runs):
    assert names(list_runs()) == ["beta", "gamma", "alpha"]
    assert names(list_runs(offset=1, limit=1)) == ["gamma"]
    assert list_runs(offset=1, limit=1).total == 3
    assert names(list_runs(sort="oldest")) == ["alpha", "gamma", "beta"]
    assert names(list_runs(sort="name")) == ["alpha", "beta", "gamma"]
    with pytest.raises(ValueError, match="sort is 'size'"):
        list_runs(sort="size")


def test_filters(runs):
    status.update(runs[0], state="finished")
    assert names(list_runs(state="finished")) == ["alpha"]
    assert names(list_runs(query="SMOL lora")) == ["gamma"]
    assert names(list_runs(query="smol dpo")) == []
    update_meta(runs[2], tags=["keeper"])
    page = list_runs(query="keep")
    assert (page.total, names(page)) == (1, ["beta"])
    assert names(list_runs(sort="state")) == ["beta", "gamma", "alpha"]


def test_by_loss_the_lowest_comes_first_and_what_failed_last(runs):
    failed = create_run("stage: sft\n", "failed")
    status.update(failed, state="failed")
    for folder, loss in ((runs[0], 0.5), (runs[1], 0.25), (failed, 0.125)):
        RunWriter(folder).metric(1, {"loss": loss})
    assert names(list_runs(sort="loss")) == ["gamma", "alpha", "failed", "beta"]
    assert names(list_runs(sort="loss", offset=1, limit=2)) == ["alpha", "failed"]
    RunWriter(runs[0]).metric(2, {"loss": float("nan")})
    assert names(list_runs(sort="loss")) == ["gamma", "failed", "beta", "alpha"]


def test_by_a_metric_of_evaluations_the_better_ones_come_first(runs):
    values = [{"eval_rougeL": 0.25, "eval_loss": 2.0}, {"eval_rougeL": 0.5, "eval_loss": 3.0}, {"eval_loss": 1.0}]
    for folder, logged in zip(runs, values, strict=True):
        bounds = {"eval_loss/low": 0.0, "eval_loss/high": 9.0}
        writer = RunWriter(folder)
        writer.metric(1, {"loss": 1.0, "eval_rougeL": 0.9, "eval_runtime": 3.0} if folder is runs[0] else {"loss": 1.0})
        writer.metric(2, logged | bounds)
        writer.metric(3, {"loss": 0.5})
    page = list_runs(sort="metric:eval_rougeL")
    assert names(page) == ["gamma", "alpha", "beta"]  # higher is better, and beta has no answers
    assert names(list_runs(sort="metric:eval_loss")) == ["beta", "alpha", "gamma"]
    assert [(one.name, one.better) for one in page.metrics] == [("eval_loss", "lower"), ("eval_rougeL", "higher")]
    assert page.rows[0].json()["evaluated"] == {"eval_rougeL": 0.5, "eval_loss": 3.0}
    RunWriter(runs[1]).metric(4, {"eval_rougeL": float("nan")})
    assert names(list_runs(sort="metric:eval_rougeL")) == ["alpha", "beta", "gamma"]
    with pytest.raises(ValueError, match="sort is 'metric:loss'"):
        list_runs(sort="metric:loss")


def test_a_metric_that_only_the_run_declares_has_its_direction(runs):
    for folder, error in zip(runs, (3.0, 1.0, 2.0), strict=True):
        folder.resolved.write_text("metrics:\n  mistakes: lower\n  eval_own: higher\n")
        RunWriter(folder).metric(1, {"eval_mistakes": error, "eval_undeclared": error})
    page = list_runs(sort="metric:eval_mistakes")
    assert names(page) == ["gamma", "beta", "alpha"]
    assert [(one.name, one.label, one.better) for one in page.metrics] == [("eval_mistakes", "mistakes", "lower")]


def test_a_row_tells_what_the_config_says(runs):
    rows = {row.name: row for row in list_runs().rows}
    assert (rows["gamma"].model, rows["gamma"].dataset) == ("smol: lm", "a,b")
    assert (rows["gamma"].stage, rows["gamma"].method) == ("sft", "lora")
    assert (rows["beta"].model, rows["beta"].dataset) == ("", "")
    assert (rows["alpha"].model, rows["alpha"].dataset) == ("tiny", "sums")


def test_broken_folders_are_listed_with_the_reason_and_others_are_not_runs(runs):
    runs[0].status.write_text("{")
    runs[1].status.unlink()
    runs[1].meta.write_text("garbage")
    runs[2].config.unlink()
    runs[2].meta.unlink()
    (home() / "runs" / "Not A Run").mkdir()
    (home() / "runs" / ".new-1-2").mkdir()
    (home() / "runs" / "afile").write_text("")
    rows = list_runs().rows
    assert [row.state for row in rows] == ["created"] + 4 * ["broken"]
    assert {row.id: row.reason.partition(".")[0] for row in rows[3:]} == {
        "Not A Run": "This is not a run: its name is not a run id",
        "afile": "This is a file",
    }
    assert "status.json" in rows[1].reason
    assert rows[1].name == runs[1].id
    assert rows[0].name == runs[2].id
    assert names(list_runs(state="broken")) == [runs[1].id, "alpha", "Not A Run", "afile"]
    assert [row.id for row in list_runs(offset=2, limit=2).rows] == [runs[0].id, "Not A Run"]


def test_no_home_no_runs(tmp_path):
    assert list_runs(tmp_path / "none").json() == {"total": 0, "runs": []}


def test_another_home(runs, tmp_path):
    shutil.copytree(home(), tmp_path / "copy")
    shutil.rmtree(home())
    assert list_runs(tmp_path / "copy").total == 3
    assert list_runs(str(tmp_path / "copy")).total == 3


def test_active_runs_are_those_that_go(runs):
    status.update(runs[0], state="running", **ProcessId.own().json())
    status.update(runs[1], state="running", pid=2**22 - 1, started=1.0)
    status.update(runs[2], state="finished")
    assert [row.name for row in active_runs()] == ["alpha"]


def test_free_bytes_of_the_users_home(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=7))
    assert free_bytes("~/not yet") == 7
    assert asked == [tmp_path]


def test_free_bytes_of_a_home_that_is_not_there_yet(tmp_path):
    assert free_bytes(tmp_path / "not" / "yet") == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_an_index_reads_again_only_what_has_changed(monkeypatch):
    folders = [create_run("stage: sft\n", f"run-{number}") for number in range(4)]
    for folder in folders:
        status.update(folder, state="finished")
    read = []
    monkeypatch.setattr(listing, "read_row", lambda folder, **how: read.append(folder.id) or read_row(folder, **how))
    index = RunIndex()
    assert index.page().total == 4
    assert len(read) == 4
    read.clear()
    assert index.page() == index.page()
    assert read == []
    update_meta(folders[2], name="another")
    assert names(index.page(query="another")) == ["another"]
    assert set(read) == {folders[2].id}
    read.clear()
    new = create_run("stage: sft\n", "new")
    delete_run(folders[0].id)
    assert sorted(names(index.page())) == ["another", "new", "run-1", "run-3"]
    assert set(read) == {new.id}


def test_a_live_run_is_read_every_time():
    """Whether its processes live is in no file."""
    folder = create_run("stage: sft\n", "live")
    me = ProcessId.own()
    status.update(folder, state="running", pid=me.pid, started=me.started, boot_id=boot_id(), host=host())
    index = RunIndex()
    assert index.page().rows[0].state == "running"
    status.update(folder, pid=2**22 + 1, started=1.0, ticks=None)
    assert index.page().rows[0].state == "lost"


def test_a_row_has_the_shape_of_its_loss_and_the_time_that_is_left():
    folder = create_run("stage: sft\n", "live")
    me = ProcessId.own()
    status.update(
        folder, state="running", pid=me.pid, started=me.started, boot_id=boot_id(), host=host(), step=40, total=100,
        step_seconds=2.0,
    )  # fmt: skip
    lines = [{"step": step, "time": 100 + 3 * step, "attempt": 1, "values": {"loss": 2.0 / step}} for step in (1, 2)]
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    row = RunIndex().page().rows[0].json()
    # Three seconds lie between the two; the trainer's own two are of the step alone.
    assert (row["spark"], row["loss"], row["remaining"]) == ([2.0, 1.0], 1.0, 180.0)


def test_a_row_says_whether_there_is_a_result_or_a_checkpoint():
    folder = create_run("stage: sft\n", "weights")
    assert list_runs().rows[0].weights is False
    path = Checkpoints(folder).path(4)
    path.mkdir(parents=True)
    (path / "weights").write_bytes(bytes(9))
    assert list_runs().rows[0].weights is False  # it is not complete
    Checkpoints(folder).finish(4)
    assert list_runs().rows[0].weights is True
    (path / "weights").unlink()
    folder.output.mkdir()
    assert list_runs().rows[0].json()["weights"] is True


def test_a_checkpoint_that_is_removed_while_it_is_looked_at_does_not_count(monkeypatch):
    folder = create_run("stage: sft\n", "pruned")
    checkpoints = Checkpoints(folder)
    path = checkpoints.path(4)
    path.mkdir(parents=True)
    (path / "weights").write_bytes(bytes(9))
    checkpoints.finish(4)
    assert checkpoints.list() == [4]
    read = checkpoints_module.read_object_or_empty
    monkeypatch.setattr(
        checkpoints_module, "read_object_or_empty", lambda *args, **more: (read(*args, **more), shutil.rmtree(path))[0]
    )
    assert checkpoints.list() == []


def test_a_file_that_was_copied_again_says_nothing_twice(folder):
    writer, reader = RunWriter(folder), RunReader(folder)
    writer.event("warning", message="one")
    assert [event["type"] for event in reader.events()] == ["created", "warning"]
    copy = folder.events.with_name("copy")
    shutil.copy(folder.events, copy)
    copy.replace(folder.events)
    assert reader.events() == []
    RunWriter(folder).event("warning", message="two")
    assert [event["message"] for event in reader.events()] == ["two"]


def test_a_loop_of_links_hides_no_pipe(folder):
    for number in range(20):
        (folder.path / f"loop{number}").symlink_to(folder.path / f"loop{number}")
    os.mkfifo(folder.path / "pipe")
    assert read_row(folder).reason == "pipe is not a regular file. Remove it or the run."


def test_metrics_without_a_record_are_the_same_object_too(folder):
    reader = RunReader(folder)
    first = reader.metrics()
    RunWriter(folder).metric(1, {"loss": 2.0})
    assert reader.metrics() is first
    assert first.last("loss") == 2.0


def test_a_row_counts_the_records_that_the_chart_counts(folder):
    good = '{"step": 1, "values": {"loss": 1.0}}\n{"step": 2, "attempt": 2.5, "values": {"loss": 2.0}}\n'
    odd = "".join(
        f'{{"step": {step}, "values": {{"loss": 9.0}}}}\n' for step in ("true", "-1", "1e400", f"1{'0' * 20}")
    )
    folder.metrics.write_text(good + odd)
    assert read_row(folder).loss == RunReader(folder).metrics().last("loss") == 2.0


def test_a_config_is_shown_without_its_secrets(folder):
    folder.config.write_text("stage: sft\nhub_token: hf_abcdefghijklmnopqrstuvwxyz0123456789\npassword: hunter2\n")
    assert read_config(folder.config) == {"stage": "sft", "hub_token": "***", "password": "***"}


def test_keys_that_are_no_texts_are_left_out_of_a_config(folder):
    folder.config.write_text("stage: sft\n1: 2\nnull: 3\n")
    assert read_config(folder.config) == {"stage": "sft"}

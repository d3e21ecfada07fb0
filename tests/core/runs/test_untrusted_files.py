"""Every file of a run is read through `llf_core.untrusted`: in the source, and while all readers are at work."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
OPENERS = {"open", "read_text", "read_bytes", "fdopen", "memmap"}
PARSERS = {("json", "load"), ("json", "loads"), ("os", "open"), ("io", "open")}
READ_RUNS = ("llf_core/runs", "llf_core/launch", "llf_core/doctor", "llf_widgets/server", "llf_widgets/monitor")
KNOWN = {
    "llf_core/runs/process.py": "/proc",
    "llf_core/launch/environment.py": "/proc and /sys",
    "llf_core/launch/launchers/ray.py": "the address that Ray wrote of its cluster",
    "llf_core/launch/local_process.py": "a pidfd",
    "llf_core/launch/supervisor.py": "the folder of the run, to see that it is there",
    "llf_core/runs/evaluations.py": "a new file of its own",
    "llf_core/runs/disk_errors.py": "a new file of its own, which it removes",
    "llf_core/runs/files.py": "a folder that is flushed, and what `llf_core.untrusted` has opened",
    "llf_core/runs/foreign_code.py": "a config that is not read, for its hash",
    "llf_core/runs/trust.py": "the key of the home",
    "llf_core/runs/run_store.py": "a copy, checked by its hash, and new files",
    "llf_core/runs/archive.py": "a zip file that a person names, what `llf_core.untrusted` has opened, and new files",
}
"""Modules that open something without `llf_core.untrusted`, and what."""


def calls(path):
    """What a module calls, by the last name, and by the last two."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        name = node.func
        if isinstance(name, ast.Name):
            yield name.id, ("", name.id), node.lineno
        elif isinstance(name, ast.Attribute):
            of = name.value.id if isinstance(name.value, ast.Name) else ""
            yield name.attr, (of, name.attr), node.lineno


def imports_from_untrusted(path):
    return {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llf_core.untrusted")
        for alias in node.names
    }


@pytest.mark.parametrize("package", READ_RUNS)
def test_no_reader_bypasses_it(package):
    found = []
    for path in sorted((ROOT / package).rglob("*.py")):
        name, ours = str(path.relative_to(ROOT)), imports_from_untrusted(path)
        for last, both, line in calls(path):
            if (last in OPENERS and not (both[0] == "" and last in ours)) or both in PARSERS:
                found.append(f"{name}:{line} {'.'.join(filter(None, both))}")
    assert not [one for one in found if one.partition(":")[0] not in KNOWN], found


def test_only_the_door_loads_yaml():
    loads = {"load", "load_all", "safe_load", "safe_load_all", "full_load", "unsafe_load", "compose", "parse", "scan"}
    for package in ("llf_core", "llf_widgets"):
        for path in sorted((ROOT / package).rglob("*.py")):
            wrong = [line for last, both, line in calls(path) if both[0] == "yaml" and last in loads]
            assert not wrong or path.name == "plain_yaml.py", f"{path}: {wrong}"


WATCHED = """
import os, sys, traceback
from pathlib import Path

seen = []
def watch(event, args):
    if event != "open" or not isinstance(args[0], (str, bytes)):
        return
    path, flags = os.fsdecode(args[0]), args[2] or 0
    inside = f"{root}/runs/" in path or f"{root}/bin/" in path
    reads = flags & os.O_ACCMODE != os.O_WRONLY
    if inside and reads and not flags & os.O_DIRECTORY and not (flags & os.O_NOFOLLOW and flags & os.O_NONBLOCK):
        frames = [one for one in traceback.extract_stack() if "/llf_" in one.filename]
        seen.append(f"{path} by {frames[-1].filename}:{frames[-1].lineno}" if frames else path)

root = os.environ["LLF_HOME"]
from llf_core.launch import attach
from llf_core.runs import *
from llf_core.runs import bin, checkpoints, config_file, control, files, metric_columns, pace, uploads
from llf_core.runs.folder import find_run
from llf_core.runs.run_index import RunIndex
from llf_core.doctor import Doctor
from llf_core.launch.queue import MachineLoad
from llf_core.rewards import reward_names
from llf_widgets.monitor.run_view import ViewOptions, RunView
from llf_widgets.monitor.mime_bundle import mime_bundle
from llf_widgets.server.results import adapters
from llf_core.runs.archive import files_below, zip_chunks
from llf_widgets.server.runs import RunDetails, read_run

folder = create_run("model_name_or_path: tiny\\nstage: sft\\nfinetuning_type: lora\\ndataset: sums\\n", "a run")
writer = RunWriter(folder)
for step in range(1, 4):
    writer.metric(step, {"loss": 2.0 - step / 10, "tokens_per_second": 3.0})
    writer.examples(step, [1, 2], [1.0, 2.0], [3, 4])
writer.event("warning", message="One."); writer.sample(step=1, kind="answer", prompt="a", text="b", of="tuned")
folder.log.write_text("a line\\n"); folder.resolved.write_text("device: cpu\\n")
update_env(folder, device={"name": "cpu"}); control.write_replay(folder, [])
own = Checkpoints(folder); own.path(3).mkdir(parents=True); (own.path(3) / "w.bin").write_bytes(b"x"); own.finish(3)
(own.path(3) / "llf_state.json").write_text("{}"); (own.path(3) / "trainer_state.json").write_text("{}")
folder.output.mkdir(); (folder.output / "adapter_config.json").write_text('{"r": 8}')
writer.close("stopped", "Enough.")
sys.addaudithook(watch)

index = RunIndex()
index.page(); index.page(query="run", sort="loss"); adapters(index, 0, 5); MachineLoad().ahead()
run = attach(folder.id); run.summary(); run.events(); run.log(5); run.code()
reader = RunReader(folder); reader.status(); reader.meta(); reader.metrics(); reader.events(); reader.samples()
view = RunView(folder); view.updates({}, ViewOptions(details=True)); mime_bundle(view.tracker)
read_run(folder); RunDetails(folder).read(); config_file.non_default_config(folder); config_file.run_config(folder)
metric_columns.ExampleLosses(folder).refresh(); control.read_changes(folder)
Doctor(folder, 1e9).look(); reward_names(folder)
for _ in zip_chunks(folder.output, files_below(folder.output), "x"): pass
from llf_core.launch.branch import branch, replay
branch(folder, 3, {"max_steps": 9}, "branched", trust=True)
send_request(folder, "stop"); Inbox(folder).scan(); update_meta(folder, note="x")
bin.find_cleanable(checkpoints=True); delete_run(folder.id); deleted_runs(); restore_run(folder.id)
print("\\n".join(seen))
"""


def test_what_is_opened_while_all_readers_are_at_work(llf_home):
    llf_home.mkdir()
    done = subprocess.run(
        [sys.executable, "-c", WATCHED], capture_output=True, text=True, timeout=120, check=False, cwd=ROOT
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout + done.stderr[-3000:]

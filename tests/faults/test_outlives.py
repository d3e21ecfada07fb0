"""A run outlives cell, kernel and server: one real run, started in a cell, while all around it is taken away."""

import json
import time

import pytest

from llf_core.launch import Run, attach
from llf_core.runs import RunReader, read_status
from tests.faults.jupyter import notebook_cell, write_config
from tests.processes import wait_for_supervisor

STEPS = 100_000
"""More than any test waits for: the last step is set once all faults are over."""
ATTACH = """
import time, llf_widgets as llf
llf.attach  # what is timed is the attaching, not the import
began = time.process_time()
run = llf.attach({run!r})
shown = repr(run)
print(time.process_time() - began, run.state, run.status().step, shown)
"""


def wait_for_step(run, step, seconds=240):
    """Waits until that step was made, while the run goes; returns how many steps were made by then."""
    until = time.monotonic() + seconds
    reader = RunReader(run.folder)
    while (made := max(reader.metrics().steps("loss"), default=0)) < step:
        now = run.status()
        assert not now.has_ended, f"{now.state}: {now.reason}\n{run.log(30)}"
        assert time.monotonic() < until, f"it stays at step {made}"
        time.sleep(0.02)
    return made


def attached(kernel, run_id):
    """What a cell that attaches sees: its processor seconds (others may use the cores), state and step."""
    seconds, state, step, _ = kernel.run(ATTACH.format(run=run_id)).split(maxsplit=3)
    return float(seconds), state, int(step)


@pytest.mark.launches
@pytest.mark.timeout(900)
def test_a_run_outlives_cell_kernel_and_server(jupyter, settings, tmp_path):
    config = write_config(tmp_path, settings | {"max_steps": STEPS, "save_steps": 100, "threads": 1})
    server = jupyter()
    kernel = server.kernel()
    run = attach(kernel.run(notebook_cell(config)))
    still = read_status(run.folder).supervisor

    def goes_on(what):
        """Nothing of the run noticed: the same supervisor, no final state, and it is not over yet."""
        now = run.status()
        assert now.state in {"starting", "running"}, f"after {what}: {now.state} at step {now.step}: {now.reason}"
        assert (now.supervisor, now.attempt) == (still, 1)

    # Interrupted while the cell waits for it: the waiting ends, and says how to stop the run.
    waiting = kernel.send("print('waits', flush=True); shown = run.wait(); print(shown.state)")
    kernel.listen(waiting, "waits")
    kernel.interrupt()
    said = kernel.listen(waiting)
    waiting.close()
    assert f"{run.id} is still running. Stop it with run.stop()" in said
    goes_on("interrupt")

    kernel.restart()
    goes_on("restart")
    wait_for_step(run, 1)
    seconds, state, step = attached(kernel, run.id)
    assert (seconds < 1, state) == (True, "running")

    kernel.kill()
    goes_on("kill -9 of the kernel")
    kernel = server.kernel()
    kernel.shutdown()
    goes_on("shutdown")
    assert [row["id"] for row in server.ask("llf/api/runs?state=running")["runs"]] == [run.id]
    before = wait_for_step(run, 1)
    server.kill()
    goes_on("kill -9 of the server")
    wait_for_step(run, before + 1)

    server = jupyter()
    kernel = server.kernel()
    seconds, state, step = attached(kernel, run.id)
    assert (seconds < 1, state) == (True, "running")
    assert 0 <= step < STEPS
    assert server.ask(f"llf/api/runs/{run.id}")["status"]["state"] == "running"

    made = wait_for_step(run, 1)
    print(f"{made} steps were made by the last fault; attaching took {seconds:.3f} s")
    last = made + 500  # far enough for the request to be read before
    run.set(max_steps=last, wait=True)
    final = wait_for_supervisor(run, 600)
    check_whole(run, last)
    assert (final.attempt, final.supervisor) == (1, still)
    seconds, state, step = attached(kernel, run.id)
    assert (seconds < 1, state, step) == (True, "finished", last)
    assert json.loads(kernel.run("import json; print(json.dumps(sorted(run.metrics().index)))"))[-1] == last


def check_whole(run: Run, last: int):
    """Finished, with every step in the file once."""
    final = run.status()
    assert final.state == "finished", f"{final.state}: {final.reason}\n{run.log(30)}"
    records = [json.loads(line) for line in run.folder.metrics.read_text().splitlines()]
    assert [record["step"] for record in records if "loss" in record["values"]] == list(range(1, last + 1))
    states = [event["state"] for event in run.events() if event["type"] == "state"]
    assert states == ["starting", "running", "finished"]
    assert (run.output / "adapter_model.safetensors").is_file()

"""What a run has logged, and whether one that was stopped logs the same."""

from llf_core.runs import RunReader, send_request
from llf_core.runs.status import begin_attempt
from llf_core.training.session import run_attempt


def curve(folder, name="loss"):
    return RunReader(folder).metrics().values(name).tolist()


def stop_and_resume(half, whole):
    """Stops a run of six steps, resumes it, and compares its losses with those of one that was not stopped."""
    send_request(half, "stop")
    assert run_attempt(half, 1) == 0
    assert 0 < len(curve(half)) < 6
    begin_attempt(half, 2)
    assert run_attempt(half, 2) == 0
    assert [one.hex() for one in curve(half)] == [one.hex() for one in curve(whole)]

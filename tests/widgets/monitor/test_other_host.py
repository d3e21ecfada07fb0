"""The monitor of a run on another host, over a real sshd on loopback."""

from llf_core.runs import RunWriter, create_run
from llf_widgets import Monitor
from llf_widgets.monitor.status_text import status_text
from tests.ssh_box import box, until  # noqa: F401 - fixtures


def test_a_monitor_shows_a_run_of_another_host_and_says_since_when_it_is_stale(box, until):  # noqa: F811
    folder = create_run("model_name_or_path: tiny\nstage: sft\n", "far", box.home)
    writer = RunWriter(folder, 1)
    writer.start_heartbeat()
    writer.status(state="running", total=5)
    writer.metric(1, {"loss": 2.0})
    view = Monitor(f"ssh://box/{folder.id}")
    tracker = view._run_view.tracker
    assert view.state == "running"
    until(lambda: "loss" in tracker.series and tracker.series["loss"][1].tolist() == [2.0])
    writer.metric(2, {"loss": 1.5})
    until(lambda: tracker.series["loss"][1].tolist() == [2.0, 1.5])
    box.cut()
    until(lambda: "No news from box since" in status_text(tracker.snapshot))
    assert view.state == "running"
    box.start()
    until(lambda: "No news" not in status_text(tracker.snapshot))
    writer.close("finished")
    assert view.wait(120) == "finished"
    view.close()

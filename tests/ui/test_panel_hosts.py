"""The panel's second home: a run of another host, over a real sshd on loopback."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any

import pytest
from playwright.sync_api import expect

from llf_core.launch import Run, attach
from llf_core.launch.local_process import start_supervisor
from llf_core.runs import create_run
from tests.processes import end, processes_of
from tests.ssh_box import ROOT, box, until  # noqa: F401 - fixtures
from tests.ui.test_panel import open_panel

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.browser, pytest.mark.launches]
PROGRAM = ROOT / "tests" / "core" / "launch" / "program.py"


@pytest.fixture
def far(box: Any, lab: Any, until: Any) -> Iterator[Run]:  # noqa: F811 - fixtures
    """A run of the box that trains, opened from this machine."""
    folder = create_run("model_name_or_path: tiny\nstage: sft\n", "far", box.home)
    start_supervisor(folder, {"LLF_HOME": str(box.home)}, [sys.executable, str(PROGRAM), str(folder.path), "train"])
    run = Run(folder)
    until(lambda: run.state == "running")
    attach(f"ssh://box/{run.id}", lab.home)
    yield run
    end([one for one in processes_of(lab.home) if "llf_core.remote.mirror" in one.cmdline()])
    shutil.rmtree(lab.home / "remote")


def test_a_run_of_another_host_is_listed_followed_and_stopped(page: Any, lab: Any, far: Run, until: Any) -> None:  # noqa: F811
    panel = open_panel(page, lab)
    machine = panel.get_by_label("Machine")
    expect(machine.locator("option")).to_have_text(["This machine", "box: 1 run"])
    row = panel.locator(f"[data-run='{far.id}']")
    expect(row).to_have_count(0)
    machine.select_option("box")
    expect(row).to_contain_text("running")
    row.click()
    details = panel.locator(".llf-Details")
    expect(details.locator(".llf-State")).to_have_text("running")
    expect(details.get_by_role("button", name="Evaluate")).to_have_count(0)
    details.get_by_role("button", name="Stop").click()
    expect(details.locator(".llf-State")).to_have_text("stopped")
    assert until(lambda: far.state == "stopped")
    panel.get_by_role("button", name="Runs", exact=True).click()
    panel.get_by_label("Machine").select_option("This machine")
    expect(row).to_have_count(0)

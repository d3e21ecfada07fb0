"""A plug-in of pytest that tells of a failure when it happens: where time runs out there is no end at which to tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest


class AtOnce:
    """Writes what a test that failed has to say."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Set-up, call or tear-down of a test has ended."""
        if report.failed:
            terminal: Any = self.config.pluginmanager.get_plugin("terminalreporter")
            terminal.write_line("")
            terminal.write_line(f"{report.nodeid} ({report.when}):\n{report.longreprtext}")
            terminal.write_line("\n".join(text for _, text in report.sections))


def pytest_configure(config: pytest.Config) -> None:
    """Makes it one of the plug-ins."""
    config.pluginmanager.register(AtOnce(config), "at-once")

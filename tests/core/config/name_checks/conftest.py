"""A machine without a cache of its own, in a folder of its own, that may ask no hub."""

import pytest

from llf_core.config import validate
from llf_core.config.name_checks import check_local


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """The working directory: empty."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def found(machine):
    """`found(**config) -> CheckResult` of a config in the working directory."""

    def of(*, runs=(), **config):
        report = validate({"dataset": "llf_demo"} | config)
        assert report.ok, report.problems
        return check_local(report.config, report.base, runs)

    return of


@pytest.fixture
def only(found):
    """`only(**config) -> Problem`, the one that there is."""

    def of(**config):
        (problem,) = found(**config).problems
        return problem

    return of

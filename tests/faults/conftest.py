"""Real trainers, kernels and servers; every process that a test starts is ended after it."""

import pytest

from tests.attempts import data_file, make_run, settings, trained
from tests.faults.jupyter import Jupyter
from tests.processes import end, processes_of

__all__ = ["data_file", "make_run", "settings", "trained"]


@pytest.fixture(autouse=True)
def no_process_stays(llf_home):
    """Ends what a test left behind, known to its run folder or not."""
    yield
    end(processes_of(llf_home))


@pytest.fixture
def jupyter(llf_home, tmp_path):
    """`jupyter() -> Jupyter`: a new server over this test's `LLF_HOME`."""
    servers = []

    def start():
        servers.append(Jupyter(tmp_path / f"jupyter-{len(servers)}", {"LLF_HOME": str(llf_home)}))
        return servers[-1]

    yield start
    for server in servers:
        server.close()

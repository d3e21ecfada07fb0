"""`on="ssh://host"`: a run sent to a real sshd on loopback, started there, and seen here as any run."""

import json
import sys

import pytest

from llf_core.config import ConfigError
from llf_core.launch import Run, launch
from llf_core.remote.ssh import RemoteError
from llf_core.runs import RunFolder, list_runs
from llf_core.runs.config_file import read_config
from llf_core.runs.trust import is_signed
from tests.attempts import data_file, settings  # noqa: F401 - fixtures
from tests.ssh_box import box, until  # noqa: F401 - fixtures

SECRET = "correct-horse-battery-staple"
TELLS = "import os, sys; print(len(os.environ['MY_TOKEN']), os.environ['LLF_RUN'] != '', file=sys.stderr)"


@pytest.fixture
def there(box):  # noqa: F811
    """`there(run) -> Run`: a run of the box, as the box sees it."""
    return lambda run: Run(RunFolder(box.home / "runs" / run.id))


def test_a_run_is_sent_with_its_data_and_started_by_the_host(box, there, settings, until, llf_home):  # noqa: F811
    text = open(settings["dataset"]).read()  # noqa: PTH123, SIM115
    run = launch(settings, on="ssh://box", env={"MY_TOKEN": SECRET}, command=[sys.executable, "-c", TELLS])
    assert run.folder.path == llf_home / "remote" / "box" / "runs" / run.id
    until(lambda: run.status().mirror["complete"])
    far = there(run)
    assert run.status().host == far.status().host
    assert f"{len(SECRET)} True" in run.log()
    config = read_config(far.folder.config)
    assert (config["launch"], config.get("launch_target")) == ("local", None)
    (sent,) = far.folder.data.iterdir()
    assert config["dataset"] == [f"data/{sent.name}"]
    assert sent.read_text() == text
    assert is_signed(far.folder)
    for place in (llf_home, box.home, box.place):
        assert not [
            path
            for path in place.rglob("*")
            if path.is_file()
            and not path.is_symlink()
            and "venv" not in path.parts
            and SECRET.encode() in path.read_bytes()
        ]
    assert not list((box.home / "runs").glob(".new-*"))
    assert [path.name for path in (llf_home / "remote").iterdir()] == ["box"]
    assert list_runs().total == 0


def test_what_the_host_lacks_is_a_sentence_and_leaves_nothing(box, settings, tmp_path):  # noqa: F811
    with pytest.raises(RemoteError, match=r"box: .*no-such-model"):
        launch(settings | {"model_name_or_path": str(tmp_path / "no-such-model")}, on="ssh://box")
    with pytest.raises(ConfigError, match=r"No connection to nowhere\.invalid"):
        launch(settings, on="ssh://nowhere.invalid")
    with pytest.raises(ConfigError, match="needs a host"):
        launch(settings, on="ssh")
    assert not list((box.home / "runs").iterdir())
    assert list_runs().total == 0


@pytest.mark.long
def test_a_run_on_another_host_has_the_losses_of_this_one(there, settings):  # noqa: F811
    rows = json.loads(open(settings["dataset"]).read())  # noqa: PTH123, SIM115
    rest = {key: value for key, value in settings.items() if key != "dataset"}
    here = launch(rest, rows=rows)
    run = launch(rest, rows=rows, on="ssh://box")
    of_file = launch(settings, on="ssh://box")
    ended = [one.wait(300, progress=False).state for one in (here, run, of_file)]
    assert ended == ["finished"] * 3
    assert of_file.metrics()["loss"].tolist() == here.metrics()["loss"].tolist()
    assert run.metrics()["loss"].tolist() == here.metrics()["loss"].tolist()
    assert len(run.metrics()) == 6
    assert (run.fetch() / "adapter_model.safetensors").read_bytes() == (
        there(run).output / "adapter_model.safetensors"
    ).read_bytes()

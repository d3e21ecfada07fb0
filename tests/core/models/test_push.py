"""Folders that the hub's own client pushes to a server on the loopback device, and what is said where it refuses."""

import pytest

from llf_core.models.push import Destination, PushError, find_destination, push_folder

from .push_server import TOKEN, PushedHub, serve_pushes


@pytest.fixture
def hub(monkeypatch):
    """A hub that knows the user `ada`; `HF_ENDPOINT` names it."""
    state = PushedHub()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    with serve_pushes(state) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield state


@pytest.fixture
def folder(tmp_path):
    """A folder with a file below another one, and what means nothing elsewhere."""
    for name in ("README.md", "weights/model.safetensors", "llf_result.json"):
        path = tmp_path / "result" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode() * 100)
    return tmp_path / "result"


def test_a_folder_arrives_as_it_is(hub, folder):
    to = find_destination("tuned", private=True, revision="v1")
    assert to == Destination("ada/tuned", private=True, revision="v1")
    url = push_folder(folder, to, "Upload")
    assert url.endswith("/ada/tuned")
    assert hub.private == {"ada/tuned": True}
    assert hub.branches == ["v1"]
    expected = {name: (folder / name).read_bytes() for name in ("README.md", "weights/model.safetensors")}
    assert hub.repos["ada/tuned"] == expected
    assert push_folder(folder, find_destination("lab/tuned"), "Upload").endswith("/lab/tuned")


@pytest.mark.parametrize(
    ("repo", "said"),
    [
        ("someone/else", "The token of ada cannot write to someone/else. Expected a repository of one of: ada, lab."),
        ("a/b/c", "'a/b/c' is not a hub id. Expected owner/name"),
    ],
)
def test_a_repository_that_is_not_theirs(hub, repo, said):
    with pytest.raises(PushError, match=said.replace(".", r"\.")):
        find_destination(repo)
    assert not hub.repos


def test_a_hub_that_does_not_know_the_user(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "b" * 34)
    with pytest.raises(PushError, match=r"tuned was not pushed\. The hub does not know who you are\. Set HF_TOKEN"):
        find_destination("tuned")


@pytest.mark.parametrize(
    ("status", "said"), [(403, "The token may not write there."), (507, "answered with status 507")]
)
def test_an_upload_that_fails_leaves_the_folder(hub, folder, status, said):
    to = find_destination("tuned")
    hub.broken["/commit/"] = status
    with pytest.raises(PushError, match=said) as error:
        push_folder(folder, to, "Upload")
    assert f"{folder} is complete." in str(error.value)


def test_a_hub_that_is_down(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushError, match="The hub does not answer"):
        find_destination("tuned")


def test_a_folder_that_is_not_there_is_no_fault_of_the_hub(hub, tmp_path):
    to = find_destination("tuned")
    with pytest.raises(PushError, match=r"^ada/tuned was not pushed: .*missing is no folder\.$"):
        push_folder(tmp_path / "missing", to, "Upload")

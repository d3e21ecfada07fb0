"""Folders that ModelScope's own client pushes to a server on the loopback device, and what is said where it refuses."""

import pytest

from llf_core.models import push
from llf_core.models.push import Destination, PushError, find_destination, push_folder

from .modelscope_server import TOKEN, PushedModels, serve_models


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A ModelScope that knows the user `ada`; `MODELSCOPE_ENDPOINT` names it."""
    pytest.importorskip("modelscope_hub", reason="modelscope-hub is not installed.")
    state = PushedModels()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", TOKEN)
    with serve_models(state) as address:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", address)
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
    before = sorted(folder.rglob("*"))
    to = find_destination("modelscope:tuned", private=True)
    assert to == Destination("modelscope:ada/tuned", private=True)
    assert push_folder(folder, to, "Upload").endswith("/models/ada/tuned")
    assert hub.visibility == {"ada/tuned": 1}
    expected = {name: (folder / name).read_bytes() for name in ("README.md", "weights/model.safetensors")}
    assert hub.repos["ada/tuned"] == expected
    (folder / "README.md").write_text("Newer.")
    push_folder(folder, to, "Upload again")
    assert hub.repos["ada/tuned"] == expected | {"README.md": b"Newer."}
    assert sorted(folder.rglob("*")) == before


def test_what_modelscope_refuses_is_a_sentence_without_the_token(hub, folder, monkeypatch):
    to = find_destination("modelscope:lab/tuned")
    hub.broken["/commit/"] = 403
    with pytest.raises(
        PushError, match=r"lab/tuned was not pushed to ModelScope\. It refused the files: .*failed"
    ) as error:
        push_folder(folder, to, "Upload")
    assert f"{folder} is complete." in str(error.value)
    wrong = "ms-" + "b" * 30
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", wrong)
    with pytest.raises(PushError, match="It does not know the token") as error:
        find_destination("modelscope:tuned")
    assert wrong not in str(error.value)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(PushError, match="It does not answer"):
        find_destination("modelscope:tuned")


def test_what_is_missing_is_named(monkeypatch):
    with pytest.raises(PushError, match="'a/b/c' is not the id of a repository on ModelScope"):
        find_destination("modelscope:a/b/c")
    monkeypatch.delenv("MODELSCOPE_API_TOKEN", raising=False)
    monkeypatch.setattr(push, "find_spec", lambda name: name)
    with pytest.raises(PushError, match="MODELSCOPE_API_TOKEN is not set"):
        find_destination("modelscope:tuned")
    monkeypatch.setattr(push, "find_spec", lambda name: None)
    with pytest.raises(PushError, match=r'modelscope-hub is not installed\. Run pip install "modelscope-hub>=0.5"'):
        find_destination("modelscope:tuned")

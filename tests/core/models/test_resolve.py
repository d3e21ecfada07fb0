import os
import shutil

import pytest

from llf_core.models import ModelError, resolve_model


@pytest.fixture
def copy(tiny_model_dir, tmp_path):
    """A copy of the tiny model that a test may damage."""
    return shutil.copytree(tiny_model_dir, tmp_path / "model")


def refused(name, config=None):
    with pytest.raises(ModelError) as error:
        resolve_model(str(name), config)
    return str(error.value)


def test_a_folder_is_its_own_portable_name(tiny_model_dir):
    source = resolve_model(str(tiny_model_dir))
    assert (source.kind, source.path, source.portable_name) == ("folder", tiny_model_dir, str(tiny_model_dir))
    assert source.license is None


def test_licence_is_read_from_the_card(copy):
    (copy / "README.md").write_text("---\nlicense: mit\ntags: [a]\n---\n# A model\n")
    assert resolve_model(str(copy)).license == "mit"


@pytest.mark.parametrize("card", ["no front matter", "---\nlicense: [broken\n---\n", "---\n- a list\n---\n", "---\n"])
def test_a_card_that_says_no_licence_is_no_error(copy, card):
    (copy / "README.md").write_text(card)
    assert resolve_model(str(copy)).license is None


def test_a_card_that_cannot_be_read_is_no_error(copy):
    (copy / "README.md").symlink_to("/proc/self/mem")
    assert resolve_model(str(copy)).license is None


def test_a_folder_under_llf_home_has_no_portable_name(copy, home):
    (home / "runs/r/output").parent.mkdir(parents=True)
    shutil.move(copy, home / "runs/r/output")
    assert resolve_model(str(home / "runs/r/output")).portable_name is None


def test_a_link_into_llf_home_has_no_portable_name_either(copy, home, tmp_path):
    (home / "models").mkdir(parents=True)
    shutil.move(copy, home / "models/m")
    (tmp_path / "link").symlink_to(home / "models/m")
    assert resolve_model(str(tmp_path / "link")).portable_name is None


def test_no_weights(copy):
    (copy / "model.safetensors").unlink()
    assert "has no weights. Expected *.safetensors" in refused(copy)


def test_no_config(copy):
    (copy / "config.json").unlink()
    assert "has no config.json" in refused(copy)


def test_pickle_only_is_refused_unless_allowed(copy, config):
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    message = refused(copy)
    assert "pytorch_model.bin" in message
    assert "allow_pickle: true" in message
    allowed = config(model_name_or_path=str(copy), allow_pickle=True)
    assert resolve_model(str(copy), allowed).kind == "folder"


def test_training_leftovers_are_no_weights(copy):
    (copy / "model.safetensors").unlink()
    (copy / "training_args.bin").write_bytes(b"")
    (copy / "optimizer.pt").write_bytes(b"")
    assert "has no weights" in refused(copy)


def test_a_missing_shard_is_named(copy):
    (copy / "model.safetensors").rename(copy / "model-00001-of-00002.safetensors")
    (copy / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}'
    )
    message = refused(copy)
    assert "lacks 1 of its 2 weight files" in message
    assert "model-00002-of-00002.safetensors" in message


def test_an_adapter_is_told_from_a_model(copy):
    (copy / "model.safetensors").rename(copy / "adapter_model.safetensors")
    (copy / "adapter_config.json").write_text("{}")
    assert "is an adapter, not a model. Set adapter_name_or_path to it" in refused(copy)


@pytest.mark.parametrize("name", ["/no/such/folder", "./here", "~/nowhere-at-all", "a/b/c", "model.gguf", "two words"])
def test_what_can_only_be_a_path_is_not_asked_of_a_hub(name, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert f"No model at {name}." in refused(name)


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"")
    assert "is a file of type .onnx" in refused(tmp_path / "model.onnx")


def test_a_pipe_in_place_of_weights_is_not_waited_for(tiny_model_dir, tmp_path):
    copy = shutil.copytree(tiny_model_dir, tmp_path / "model")
    os.mkfifo(copy / "more.safetensors")
    with pytest.raises(ModelError, match=r"more\.safetensors is not a regular file"):
        resolve_model(str(copy))

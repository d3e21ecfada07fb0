import pytest

from llf_core.config import RunConfig
from llf_core.methods.method import apply_method
from llf_core.models import load_model, load_tokenizer, plan_device, resolve_model


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty `LLF_HOME`."""
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def config(tiny_model_dir):
    """`config(lora_rank=4, …)`: a config for the tiny model on the CPU."""

    def make(**keys):
        return RunConfig.load(
            {"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo", "use_cpu": True} | keys
        )

    return make


@pytest.fixture
def loaded():
    """`loaded(config)`: source, tokenizer and the model after its method."""

    def load(config):
        source = resolve_model(config.model.model_name_or_path, config)
        model = load_model(source, config, plan_device(config))
        return source, load_tokenizer(source, config), apply_method(model, config)

    return load

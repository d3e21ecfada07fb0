import pytest

from llf_core.config import RunConfig
from llf_core.methods.method import make_method
from llf_core.models import load_model, plan_device, resolve_model


@pytest.fixture
def tuned(tiny_model_dir, tmp_path, monkeypatch):
    """`tuned(finetuning_type="lora", …)`: the tiny model after such a method; with `method=True` the method too."""
    monkeypatch.setenv("LLF_HOME", str(tmp_path / "home"))

    def make(method=False, **keys):
        keys = {"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo", "use_cpu": True} | keys
        config = RunConfig.load(keys)
        source = resolve_model(config.model.model_name_or_path, config)
        model = load_model(source, config, plan_device(config))
        one = make_method(config)
        adapted = one.apply(model)
        return (adapted, one) if method else adapted

    return make

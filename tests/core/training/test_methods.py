"""Methods of other packages: adapters of another kind than LoRA, and one that trains nothing."""

import pytest

from llf_core.config import field_specs, validate
from llf_core.config.declaration import MethodDeclaration
from llf_core.config.registry import _loaded
from llf_core.evaluation.run_losses import losses
from llf_core.methods.method import Method
from llf_core.methods.peft_tuner import begin_adapter
from llf_core.runs import RunReader, read_status


class IA3(Method):
    """Vectors that rescale keys, values and the inner activations (arXiv 2205.05638)."""

    def apply(self, model):
        from peft import IA3Config, get_peft_model

        settings = IA3Config(
            task_type="CAUSAL_LM",
            target_modules=["k_proj", "v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
        )
        return begin_adapter(model, self.config, lambda merged: get_peft_model(merged, settings))


class Still(Method):
    """Trains nothing."""

    def apply(self, model):
        return model.requires_grad_(requires_grad=False)


DECLARED = (
    MethodDeclaration(name="scale", label="scale", implementation=f"{__name__}:IA3", frozen_base=True, adapter=True),
    MethodDeclaration(name="still", label="still", implementation=f"{__name__}:Still"),
)


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Both methods beside ours; what was read of the installed ones before is forgotten, and afterwards once more."""
    kept = [one for one in vars(field_specs).values() if hasattr(one, "cache_clear")]
    for method in DECLARED:
        monkeypatch.setitem(_loaded("method")[0], method.name, method)
    for one in kept:
        one.cache_clear()
    yield
    for one in kept:
        one.cache_clear()


def test_a_trait_of_the_method_decides_whether_a_run_goes_on_with_an_adapter():
    keys = {"model_name_or_path": "m", "dataset": "llf_demo", "adapter_name_or_path": "/a"}
    assert not validate(keys | {"finetuning_type": "scale"}).violations
    (problem, *_) = validate(keys | {"finetuning_type": "still"}).violations
    assert "cannot be continued with finetuning_type still" in problem.message


@pytest.mark.long
def test_a_run_goes_on_with_an_adapter_of_another_kind_and_is_compared_with_its_base(trained, data_file):
    folder, code = trained(
        finetuning_type="scale", learning_rate=0.05, max_steps=2, save_strategy="no", save_steps=None
    )
    assert code == 0, read_status(folder).reason
    assert (folder.output / "adapter_config.json").is_file()
    found = losses(folder, str(data_file))
    assert found.tuned < found.base
    after, code = trained(finetuning_type="scale", adapter_name_or_path=str(folder.output), max_steps=1)
    assert code == 0, read_status(after).reason
    first = [float(RunReader(run).metrics().values("loss")[0]) for run in (folder, after)]
    assert first[1] < first[0]


def test_a_method_that_trains_nothing_ends_before_the_first_step_in_a_sentence(trained):
    folder, code = trained(finetuning_type="still")
    assert code == 2
    assert read_status(folder).reason.startswith("finetuning_type still trains no parameters of ")

"""The loss of base and result is that of the run, and of a plain model over the same tokens."""

import pytest
import torch

from llf_core.config import RunConfig
from llf_core.data import prepare
from llf_core.evaluation.loaded_targets import load_base_and_tuned
from llf_core.evaluation.run_losses import losses, losses_in_child
from llf_core.runs import RunReader


def plain(folder):
    """Loss of base and tuned model, token by token in float64, with nothing of ours in the model."""
    config = RunConfig.load(folder.config)
    found = {}
    for of, model, tokenizer in load_base_and_tuned(folder, config):
        total, count = 0.0, 0
        for row in prepare(config, tokenizer).eval:
            ids, labels = (torch.tensor(row[name])[None] for name in ("input_ids", "labels"))
            with torch.no_grad():
                logits = model(input_ids=ids).logits.double()
            wanted = labels[0, 1:]
            costs = torch.nn.functional.cross_entropy(logits[0, :-1], wanted, ignore_index=-100, reduction="sum")
            total, count = total + costs.item(), count + int((wanted != -100).sum())
        found[of] = total / count
    return found


@pytest.mark.parametrize("method", ["lora", "full"])
def test_they_are_those_of_the_run_and_of_plain_models(trained, method):
    folder, _ = trained(max_steps=4, val_size=8, learning_rate=1e-2, finetuning_type=method)
    found = losses(folder)
    logged = RunReader(folder).metrics().last("eval_loss")
    assert found.tuned == pytest.approx(logged, rel=1e-6)
    expected = plain(folder)  # where products are in bf16, in another order: 2e-5 were seen
    assert found.base == pytest.approx(expected["base"], rel=2e-4)
    assert found.tuned == pytest.approx(expected["tuned"], rel=2e-4)
    assert found.examples == 8
    assert found.tuned < found.base


@pytest.mark.parametrize("new", [True, False])
def test_the_base_of_a_run_that_goes_on_has_the_adapter_that_it_began_with(trained, new):
    first, _ = trained(max_steps=6, val_size=8, learning_rate=2e-2)
    second, code = trained(
        max_steps=4, val_size=8, learning_rate=1e-2, adapter_name_or_path=str(first.output), create_new_adapter=new
    )
    assert code == 0
    logged = [RunReader(folder).metrics().last("eval_loss") for folder in (first, second)]
    found = plain(second)
    assert found["base"] == pytest.approx(logged[0], rel=5e-4)
    assert found["tuned"] == pytest.approx(logged[1], rel=5e-4)
    assert abs(logged[0] - logged[1]) > 0.01


@pytest.mark.usefixtures("warm_python")
def test_other_data_is_evaluated_in_a_child(trained, data_file):
    folder, _ = trained(max_steps=2)
    found = losses_in_child(folder.id, str(data_file))
    assert found.examples == 24
    assert 0 < found.tuned < 20


@pytest.mark.usefixtures("warm_python")
def test_what_is_missing_is_said(trained, make_run):
    with pytest.raises(RuntimeError, match="has no output yet"):
        losses_in_child(make_run().id)
    folder, _ = trained(max_steps=1)
    with pytest.raises(RuntimeError, match=r"has no evaluation data\. Pass a data set"):
        losses_in_child(folder.id)

"""The loss of a result whose model was changed: it is loaded as it was saved, not changed a second time."""

import pytest

from llf_core.evaluation.run_losses import losses
from llf_core.runs import RunReader
from tests.attempts import data_file, make_run, settings, trained
from tests.core.training.adapted import in_float32

__all__ = ["data_file", "in_float32", "make_run", "settings", "trained"]


@pytest.mark.parametrize(
    "keys",
    [
        {"finetuning_type": "full", "mixture_of_depths": "convert", "mod_capacity": 0.5},
        {
            "finetuning_type": "freeze", "use_llama_pro": True, "llama_pro_insert": True, "freeze_trainable_layers": 2,
        },
        {"finetuning_type": "full", "train_from_scratch": True},
    ],
)  # fmt: skip
def test_the_loss_of_a_result_is_that_at_the_end_of_the_run(trained, in_float32, keys):
    folder, code = trained(**keys, max_steps=8, learning_rate=1e-2, val_size=0.25)
    assert code == 0
    found = losses(folder)
    assert found.tuned == pytest.approx(RunReader(folder).metrics().values("eval_loss")[-1], rel=1e-5)
    assert found.tuned < found.base - 0.1

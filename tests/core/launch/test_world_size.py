"""Other numbers of processes share the examples of the same steps."""

import pytest

from llf_core.config import RunConfig
from llf_core.launch.resume import settings_of_processes


def config(processes, batch, accumulation, **more):
    return RunConfig.load(
        {
            "model_name_or_path": "m", "dataset": "d", "num_processes": processes,
            "per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, **more,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("before", "processes", "after"),
    [
        ((2, 2, 1), 1, (2, 2)),
        ((2, 2, 1), 4, (1, 1)),
        ((1, 2, 2), 4, (1, 1)),
        ((4, 1, 1), 2, (1, 2)),
        ((2, 3, 4), 8, (3, 1)),
        ((1, 6, 1), 3, (2, 1)),
        ((3, 2, 2), 2, (2, 3)),
    ],
)
def test_a_step_keeps_its_examples_and_no_batch_grows(before, processes, after):
    found = settings_of_processes(config(*before), processes)
    assert found == {
        "num_processes": processes,
        "per_device_train_batch_size": after[0],
        "gradient_accumulation_steps": after[1],
    }


@pytest.mark.parametrize(
    ("before", "more", "processes", "said"),
    [
        ((2, 1, 1), {}, 4, "A step of this run has 2 examples, which 4 processes cannot share equally"),
        ((2, 2, 3), {}, 5, "one of 1, 2, 3, 4, 6, 12."),
        ((2, 1, 2), {"dataloader_drop_last": True}, 4, "one of 1, 2."),
        ((2, 1, 2), {"train_sampling_strategy": "group_by_length"}, 1, "Resume with 2."),
        ((2, 1, 2), {}, 0, "Expected at least 1."),
    ],
)
def test_what_cannot_make_the_same_steps_is_refused(before, more, processes, said):
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        settings_of_processes(config(*before, **more), processes)


def test_a_batch_of_all_processes_stays_where_the_last_one_is_dropped():
    assert settings_of_processes(config(2, 1, 2, dataloader_drop_last=True), 1) == {
        "num_processes": 1,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
    }

"""What a sweep would be: proposed values, texts with commas, problems that name field, value and what is expected."""

from __future__ import annotations

import pytest

from llf_widgets.forms.state import FormState
from llf_widgets.forms.sweep_form import can_sweep, parse_values, plan_sweep, suggest_values


@pytest.fixture
def state() -> FormState:
    return FormState()


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("learning_rate", 2e-4, "6.7e-5, 2e-4, 6e-4"),
        ("num_train_epochs", 3.0, "1, 3, 9"),
        ("lora_rank", 8, "4, 8, 16"),
        ("lora_rank", 1, "1, 2"),  # none of 0
        ("seed", 42, "42, 43, 44"),
        ("lora_dropout", 0.0, "0, 0.01, 0.1"),
        ("lora_dropout", 0.4, "0.13, 0.4"),  # 1.2 is no share
        ("max_steps", -1, "-1"),
        ("max_samples", None, ""),
        ("learning_rate", "fast", "fast"),
        ("learning_rate", [1], "[1]"),
        ("lora_rank", {"a": 1}, '{"a": 1}'),
        ("finetuning_type", "lora", "lora"),  # too many choices to try all
        ("eval_strategy", "no", "no, steps, epoch"),
        ("use_dora", False, "true, false"),
        ("template", None, ""),
    ],
)
def test_values_are_proposed_around_what_the_form_has(state: FormState, key: str, value: object, text: str) -> None:
    assert suggest_values(state.specs[key], value) == text


def test_numbers_and_choices_can_be_swept_over(state: FormState) -> None:
    assert [key for key in ("learning_rate", "finetuning_type", "use_dora") if can_sweep(state.specs[key])] == [
        "learning_rate", "finetuning_type", "use_dora",
    ]  # fmt: skip
    assert not any(
        can_sweep(state.specs[key]) for key in ("model_name_or_path", "dataset", "lora_target", "freeze_extra_modules")
    )


def test_a_text_is_read_as_the_field_reads_it(state: FormState) -> None:
    assert parse_values(state.specs["learning_rate"], " 1e-4,3e-4 , ,fast") == [1e-4, 3e-4, "fast"]
    assert parse_values(state.specs["quantization_bit"], "4, null") == [4, None]
    assert parse_values(state.specs["use_dora"], "true, false") == [True, False]
    assert parse_values(state.specs["lora_rank"], "8, null") == [8, "null"]


def test_every_combination_is_a_run(state: FormState) -> None:
    found = plan_sweep(state, {"learning_rate": "1e-4, 3e-4", "lora_rank": "4, 8, 16"})
    assert (found.runs, found.ok, found.messages) == (6, True, ())
    assert found.values == {"learning_rate": [1e-4, 3e-4], "lora_rank": [4, 8, 16]}


def test_what_is_wrong_is_said_once_for_the_runs_that_it_is_wrong_in(state: FormState) -> None:
    found = plan_sweep(state, {"learning_rate": "1e-4, fast", "lora_rank": "4, 8, 16"})
    assert (found.runs, found.ok) == (6, False)
    (message,) = found.messages
    assert message.level == "error"
    assert message.text == (
        "`learning_rate=fast` (3 of 6 runs): "
        "Learning rate (`learning_rate`) is 'fast'. Expected a number of at least 0."
    )


def test_what_is_wrong_in_one_combination_alone_names_it(state: FormState) -> None:
    found = plan_sweep(state, {"finetuning_type": "lora, full", "use_dora": "true, false"})
    assert any(
        message.text.startswith("`finetuning_type=full use_dora=true` (1 of 4 runs): ") for message in found.messages
    )
    assert found.ok


def test_a_rule_between_fields_is_asked_for_each_run() -> None:
    state = FormState({"dataset": "llf_demo", "early_stopping_steps": 3, "val_size": 0.1, "eval_strategy": "steps"})
    assert state.config is not None
    found = plan_sweep(state, {"val_size": "0, 0.1"})
    assert not found.ok
    assert found.messages[0].text.startswith("`val_size=0` (1 of 2 runs): ")


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (
            " , ",
            (
                "LoRA rank (`lora_rank`) has no values. "
                "Expected an integer of at least 1 and at most 65,536, or several values separated by commas."
            ),
        ),
        (",".join(map(str, range(1, 102))), "The sweep has 101 runs. Expected 1 to 100."),
    ],
)
def test_too_few_and_too_many_are_refused(state: FormState, text: str, messages: str) -> None:
    found = plan_sweep(state, {"lora_rank": text})
    assert (found.runs, found.ok) == (0, False)
    assert [message.text for message in found.messages] == [messages]


def test_a_value_given_twice_is_run_once(state: FormState) -> None:
    found = plan_sweep(state, {"learning_rate": "1e-4, 3e-4, 0.0001"})
    assert (found.runs, found.ok) == (2, True)
    assert list(map(repr, plan_sweep(state, {"lora_rank": "8, 8.0"}).values["lora_rank"])) == ["8"]
    assert found.messages[0].text == "Learning rate (`learning_rate`) has 1e-4 more than once. It is run once."


def test_many_different_problems_are_counted(state: FormState) -> None:
    found = plan_sweep(state, {"learning_rate": ",".join(f"bad{number}" for number in range(20))})
    assert len(found.messages) == 7
    assert found.messages[-1].text == "14 more of this type."


def test_what_is_wrong_in_the_form_is_left_to_the_form(state: FormState) -> None:
    state.edit("lora_rank", "many")
    found = plan_sweep(state, {"learning_rate": "1e-4, fast"})
    assert (found.runs, found.messages) == (2, ())

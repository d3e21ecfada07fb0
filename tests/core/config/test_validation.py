import json

import pytest

from llf_core.cli.terminal import print_problem
from llf_core.config import ConfigError, RunConfig, validate
from llf_core.config.classify_key import known

BASE = {"dataset": "llf_demo"}


def only(report, kind):
    (problem,) = getattr(report, kind)
    return problem


def test_an_unknown_key_is_an_error_with_the_nearest_name():
    problem = only(validate(BASE | {"learning_rat": 1e-4}), "unknown")
    assert problem.message == "Unknown key `learning_rat`. Did you mean `learning_rate`?"
    assert problem.severity == "error"
    assert dict(problem.fixes[0].changes) == {"learning_rat": None, "learning_rate": 1e-4}


def test_the_nearest_name_is_sought_among_keys_that_are_not_built_too():
    assert "`use_galore`" in only(validate(BASE | {"use_gallore": True}), "unknown").message


def test_a_fix_is_offered_once_where_the_default_is_the_nearest_name_too():
    problem = only(validate(BASE | {"stage": "stf"}), "invalid")
    assert [dict(fix.changes) for fix in problem.fixes] == [{"stage": "sft"}]


def test_a_feature_that_is_not_built_is_named():
    problem = only(validate(BASE | {"use_kt": True}), "not_built")
    assert problem.message == "`use_kt` is true, which is not supported yet (KTransformers). Expected it to be absent."
    assert problem.severity == "error"


@pytest.mark.parametrize("value", [False, "no", "false", "off"])
def test_a_feature_that_is_not_built_may_say_that_it_is_not_wanted(value):
    assert validate(BASE | {"use_kt": value, "use_unsloth": value, "quantization_device_map": None}).problems == ()


def test_a_value_that_is_not_built_is_named_and_replaced_by_the_default_in_the_rest():
    report = validate(BASE | {"optim": "adamw_torch_xla", "mask_history": True, "train_on_prompt": True})
    assert "optimizers of TPUs" in only(report, "not_built").message
    assert only(report, "violations").key == "mask_history"
    assert report.config.optimizer.optim == "adamw_torch_fused"


def test_a_key_that_is_not_needed_is_a_note_that_says_what_happens_instead():
    report = validate(BASE | {"plot_loss": True})
    assert report.ok
    assert only(report, "not_needed").message == (
        "`plot_loss` is not needed. Every logged value is kept, and Monitor draws it."
    )


def test_a_key_that_is_replaced_is_a_note_where_it_is_on():
    report = validate(BASE | {"use_unsloth": True, "quantization_device_map": "auto"})
    assert report.ok
    assert [problem.severity for problem in report.not_needed] == ["note", "note"]
    assert "Unsloth replaces the model's code" in report.not_needed[0].message


def test_a_key_that_was_ours_once_is_a_note():
    report = validate(BASE | {"trunk_cache_gb": 10.0})
    assert report.ok
    assert only(report, "not_needed").severity == "note"


@pytest.mark.parametrize("key", sorted(known().secrets))
def test_secrets_are_refused_and_never_repeated(key):
    report = validate(BASE | {key: "hf_abcdef"})
    problem = only(report, "invalid")
    assert known().secrets[key] in problem.message
    assert "hf_abcdef" not in json.dumps(report.json())
    assert validate(BASE | {key: None}).problems == ()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "lora_rank",
            "many",
            "LoRA rank (`lora_rank`) is 'many'. Expected an integer of at least 1 and at most 65,536.",
        ),
        ("lora_rank", True, "LoRA rank (`lora_rank`) is true. Expected an integer of at least 1 and"),
        ("lora_rank", 0, "LoRA rank (`lora_rank`) is 0. Expected an integer of at least 1 and"),
        ("lora_rank", 2.5, "LoRA rank (`lora_rank`) is 2.5. Expected an integer of at least 1 and"),
        ("learning_rate", "fast", "Learning rate (`learning_rate`) is 'fast'. Expected a number of at least 0."),
        ("learning_rate", float("nan"), "Learning rate (`learning_rate`) is nan. Expected a number of at least 0."),
        ("adam_beta1", 1, "Adam beta 1 (`adam_beta1`) is 1. Expected a number of at least 0 and below 1."),
        ("bf16", "maybe", "bf16 (`bf16`) is 'maybe'. Expected true or false."),
        ("seed", None, "Seed (`seed`) is null. Expected an integer of at least 0 and at most 4,294,967,295."),
        ("val_size", 1.5, "Validation split (`val_size`) is 1.5. Expected an integer, or a share below 1."),
        ("max_steps", 0, "Steps (`max_steps`) is 0. Expected a number of steps, or -1 to leave it to the epochs."),
        (
            "quantization_bit",
            7,
            "Quantization bits (`quantization_bit`) is 7. Expected one of 1, 2, 3, 4, 5, 6, 8, or null.",
        ),
        ("eval_strategy", "nope", "Evaluate (`eval_strategy`) is 'nope'. Expected one of no, steps, epoch."),
        ("lr_scheduler_kwargs", "{x", "Schedule options (`lr_scheduler_kwargs`) is '{x'. Expected a mapping or a JSON"),
        ("finetuning_type", "magic", "Method (`finetuning_type`) is 'magic'. Expected one of "),
        ("lora_target", {"a": 1}, "Target modules (`lora_target`) is {'a': 1}. Expected names separated by commas"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_says_what_was_expected(key, value, message):
    problem = only(validate(BASE | {key: value}), "invalid")
    assert problem.message.startswith(message)
    assert problem.key == key


def test_the_nearest_choice_is_offered():
    problem = only(validate(BASE | {"lr_scheduler_type": "cosin"}), "invalid")
    assert dict(problem.fixes[0].changes) == {"lr_scheduler_type": "cosine"}


def test_one_of_several_names_is_checked():
    assert only(validate(BASE | {"report_to": "wandb,foo"}), "invalid").key == "report_to"
    assert RunConfig.load(BASE | {"report_to": ["wandb", "mlflow"]}).training.report_to == ("wandb", "mlflow")


def test_all_problems_are_told_at_once_and_errors_come_first():
    report = validate(BASE | {"seed": "x", "foo_bar": 1, "plot_loss": True, "fp16": True, "bf16": True})
    assert [problem.severity for problem in report.problems] == ["error", "error", "error", "note"]
    with pytest.raises(ConfigError) as error:
        RunConfig.load(BASE | {"seed": "x", "foo_bar": 1, "plot_loss": True})
    assert len(error.value.problems) == 2


def test_options_of_another_method_have_no_effect():
    problem = only(validate(BASE | {"finetuning_type": "full", "learning_rate": 1e-5, "lora_rank": 4}), "not_needed")
    assert problem.message == "`lora_rank` has no effect, since the method lora is not selected."


def test_options_of_generation_have_no_effect_on_training():
    assert only(validate(BASE | {"temperature": 0.5, "top_k": 50}), "not_needed").key == "temperature"


def test_the_report_is_json():
    report = validate(
        BASE
        | {"x": {1, 2}, "y": 1, "seed": "a", "optim": "adamw_torch_xla", "plot_loss": 1, "fp16": True, "bf16": True}
    )
    data = json.loads(json.dumps(report.json()))
    assert {key: len(value) for key, value in data.items() if key != "ok"} == {
        "unknown": 1,
        "not_built": 1,
        "invalid": 2,
        "not_needed": 1,
        "violations": 1,
        "unresolved": 0,
    }
    assert data["ok"] is False


@pytest.mark.parametrize(
    ("asked", "read"),
    [
        ({"warmup_ratio": 0.1}, {"warmup_steps": 0.1}),
        ({"warmup_ratio": 0.0}, {"warmup_steps": 0}),
        ({"warmup_ratio": 0.1, "warmup_steps": 20}, {"warmup_steps": 20}),
        ({"warmup_ratio": 0.1, "warmup_steps": 0}, {"warmup_steps": 0.1}),
        ({"evaluation_strategy": "steps", "val_size": 9}, {"eval_strategy": "steps", "eval_steps": 500}),
        ({"eval_strategy": "steps", "val_size": 9, "logging_steps": 7}, {"eval_steps": 7}),
        ({"no_cuda": True}, {"use_cpu": True}),
        ({"group_by_length": True}, {"train_sampling_strategy": "group_by_length"}),
        ({"group_by_length": False}, {"train_sampling_strategy": "random"}),
        ({"disable_shuffling": True}, {"train_sampling_strategy": "sequential"}),
        ({"activation_checkpointing": False}, {"gradient_checkpointing": False}),
        ({"per_gpu_train_batch_size": 3}, {"per_device_train_batch_size": 3}),
        ({"adafactor": True}, {"optim": "adafactor"}),
        ({"fsdp": "full_shard auto_wrap", "num_processes": 2}, {"strategy": "fsdp2"}),
        ({"fsdp": ["full_shard"], "num_processes": 2}, {"strategy": "fsdp2"}),
        ({"fsdp": "shard_grad_op auto_wrap", "num_processes": 2}, {"strategy": "zero2"}),
        ({"fsdp": "hybrid_shard auto_wrap", "num_processes": 2}, {"strategy": "hsdp"}),
        ({"strategy": "zero1", "num_processes": 2}, {"strategy": "zero2"}),
        ({"strategy": "zero3", "num_processes": 2}, {"strategy": "fsdp2"}),
        ({"fsdp": ""}, {"strategy": "ddp"}),
        ({"early_stopping_steps": 2, "val_size": 9, "eval_strategy": "epoch"}, {"metric_for_best_model": "loss"}),
    ],
)
def test_older_names_are_translated(asked, read):
    config = RunConfig.load(BASE | asked)
    assert {key: config.get(key) for key in read} == read


@pytest.mark.parametrize("key", sorted(known().translated))
def test_older_names_with_no_number_are_reported(key):
    report = validate({"dataset": "x", key: float("nan")})
    assert key in {name for problem in report.problems for name in problem.keys}


def test_a_translation_is_told():
    assert only(validate("dataset: x\nwarmup_ratio: 0.1\n"), "not_needed").message == (
        "`warmup_ratio` is read as `warmup_steps: 0.1`."
    )


def test_two_names_with_two_values_are_an_error():
    assert only(validate(BASE | {"evaluation_strategy": "no", "eval_strategy": "epoch"}), "invalid").key == (
        "evaluation_strategy"
    )
    assert only(validate(BASE | {"warmup_ratio": 3}), "invalid").key == "warmup_ratio"
    assert "`fsdp` is 'offload'" in only(validate(BASE | {"fsdp": "offload"}), "invalid").message


@pytest.mark.parametrize("text", [None, "a: [", "{"])
def test_a_file_that_cannot_be_read_is_all_that_is_said(tmp_path, text):
    path = tmp_path / "c.json"
    if text is not None:
        path.write_text(text)
    (problem,) = validate(path).problems
    assert (problem.kind, problem.key) == ("invalid", "")


def test_metrics_of_evaluations_count_as_used():
    config = {"eval_strategy": "epoch", "val_size": 0.1, "compute_accuracy": True, "metrics": ["rouge"]}
    report = validate({"model_name_or_path": "smollm2-135m-instruct", "dataset": "llf_demo", **config})
    assert not [one.message for one in report.problems if "no effect" in one.message]


@pytest.mark.parametrize("key", ["group_by_length", "use_liger_kernel", "neat_packing", "adafactor", "pissa_init"])
def test_a_flag_of_another_name_is_read_as_a_flag(key):
    for off in (False, "no", "off", 0, None):
        assert validate(BASE | {key: off}).config == validate(BASE).config
    on = [validate(BASE | {key: value}).config for value in (True, "yes", 1)]
    assert on[0] == on[1] == on[2] != validate(BASE).config
    problem = only(validate(BASE | {key: "banana"}), "invalid")
    assert problem.message == f"`{key}` is 'banana'. Expected true or false."


def test_two_names_of_a_flag_may_be_written_in_two_ways():
    assert validate(BASE | {"neat_packing": True, "packing": "yes"}).config.data.packing is True
    assert "set the same key" in only(validate(BASE | {"neat_packing": True, "packing": "no"}), "invalid").message
    assert validate(BASE | {"no_cuda": "yes", "use_cpu": True}).config.training.use_cpu is True


@pytest.mark.parametrize("names", ["rouge,bleu", "rouge, bleu", ["rouge", "bleu"]])
def test_two_names_of_a_list_may_be_written_in_two_ways(names):
    report = validate(BASE | {"val_size": 0.1, "predict_with_generate": True, "metrics": names})
    assert report.invalid == []
    assert report.config.evaluation.metrics == ("rouge", "bleu")


def test_true_is_no_number_of_bits():
    assert only(validate(BASE | {"quantization_bit": True}), "invalid").message.startswith("Quantization bits")


def test_a_secret_in_the_name_of_a_key_is_shown_nowhere(capsys):
    secret = "hf_AbCdEfGhIjKlMnOpQrStUvWx"
    reports = [
        validate(f"dataset: llf_demo\nhub_token:{secret}: 1\n"),
        validate(BASE | {"lr_scheduler_kwargs": {secret: 1}}),
        validate({f"{secret}{number}": 1 for number in range(60)}),
        validate(BASE, [f"hub_token=[{secret}"]),
    ]
    for report in reports:
        assert not report.ok
        for problem in report.problems:
            print_problem(problem)
        assert secret not in json.dumps(report.json()) + "".join(capsys.readouterr())


def test_a_changed_value_counts_by_whichever_name():
    config = RunConfig.load(BASE | {"warmup_ratio": 0.1})
    assert config.replace(warmup_ratio=0.2).optimizer.warmup_steps == 0.2
    assert config.replace(warmup_ratio=0).optimizer.warmup_steps == 0
    assert config.replace(warmup_ratio=None).optimizer.warmup_steps == 0
    ordered = config.replace(disable_shuffling=True)
    assert ordered.replace(group_by_length=True).training.train_sampling_strategy == "group_by_length"
    assert ordered.replace(group_by_length=False).training.train_sampling_strategy == "sequential"
    assert ordered.replace(disable_shuffling=False).training.train_sampling_strategy == "random"
    with pytest.raises(ConfigError, match="Unknown key `bogus`"):
        config.replace(bogus=None)


def test_an_override_counts_by_whichever_name(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("dataset: llf_demo\nwarmup_steps: 9\nevaluation_strategy: epoch\nval_size: 0.1\nadafactor: true\n")
    given = ["warmup_ratio=0.2", "eval_strategy=no", "optim=adamw_torch"]
    report = validate(file, given)
    assert [one for one in report.problems if one.severity == "error"] == []
    assert (report.config.optimizer.warmup_steps, report.config.optimizer.optim) == (0.2, "adamw_torch")
    assert (report.config.training.eval_strategy, report.config.get("val_size")) == ("no", 0.1)
    assert [report.lines.get(key) for key in ("warmup_steps", "eval_strategy", "optim")] == [None] * 3
    assert validate(file, ["adafactor=false"]).config.optimizer.warmup_steps == 9
    assert validate(file, ["warmup_ratio=0"]).config.optimizer.warmup_steps == 0
    assert not validate(file, ["adafactor=true", "optim=adamw_torch"]).ok  # nobody knows which is meant


def test_options_that_no_optimizer_reads_are_told():
    assert (
        "the optimizer adamw_torch_fused has no options"
        in only(validate(BASE | {"optim_args": "a=1"}), "violations").message
    )
    assert (
        "has no options"
        in only(validate(BASE | {"optim": "rmsprop_bnb", "optim_args": "alpha=1"}), "violations").message
    )

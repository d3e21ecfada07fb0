"""Whole attempts of a tiny real Llama, in this process."""

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoTokenizer

from llf_core.doctor import Doctor
from llf_core.runs import Checkpoints, RunReader, read_status, send_request, status
from llf_core.runs.archive import export_run, import_run
from llf_core.training.metrics_callback import MetricsCallback
from llf_core.training.resolved_config import ResolvedError, read_resolved
from llf_core.training.session import run_attempt


def losses(folder):
    """Step -> loss as hex, so that equal means equal to the last bit."""
    columns = RunReader(folder).metrics()
    return dict(zip(columns.steps("loss").tolist(), [float(v).hex() for v in columns.values("loss")], strict=True))


def events(folder, kind):
    return [event for event in RunReader(folder).events() if event["type"] == kind]


def stop_at(monkeypatch, folder, step):
    """Drops a stop request into the folder when step `step` has been made."""
    original = MetricsCallback.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == step:
            send_request(folder, "stop", by="test")
        original(self, args, state, control, **kwargs)

    monkeypatch.setattr(MetricsCallback, "on_step_end", on_step_end)


def next_attempt(folder):
    """What `Run.resume` does before it starts a trainer."""
    attempt = read_status(folder).attempt + 1
    status.begin_attempt(folder, attempt)
    return run_attempt(folder, attempt)


def test_a_run_leaves_what_the_contract_names(trained):
    folder, code = trained()
    assert code == 0
    final = read_status(folder)
    assert (final.state, final.step, final.total, final.attempt) == ("finished", 6, 6, 1)
    assert sorted(losses(folder)) == [1, 2, 3, 4, 5, 6]
    assert Checkpoints(folder).list() == [4, 6]
    assert {event["step"] for event in events(folder, "checkpoint_removed")} == {2}
    columns = RunReader(folder).metrics()
    assert {
        "loss",
        "learning_rate",
        "grad_norm",
        "tokens",
        "trained_tokens",
        "tokens_per_second",
        "memory",
    } <= set(columns.names)
    (data,) = events(folder, "data")
    assert data["examples"] == 24
    assert data["dropped"] == 0
    # 6 steps of 4 examples are one epoch: every token was read once.
    assert columns.values("tokens")[-1] == data["tokens"]
    assert columns.values("trained_tokens")[-1] == data["trained_tokens"]
    assert (folder.output / "adapter_model.safetensors").is_file()
    assert "finished" in [event["state"] for event in events(folder, "state")]


def test_a_run_opens_elsewhere_as_it_is(trained, tmp_path):
    folder, _ = trained(val_size=0.25, eval_strategy="steps", eval_steps=3)
    opened = import_run(export_run(folder.id, tmp_path / "run.zip"), home=tmp_path / "other")
    of_this_machine = {"status.lock", ".reserve"}
    there = {path.relative_to(folder.path) for path in folder.path.rglob("*") if path.is_file()}
    assert {path for path in there if not (opened.path / path).exists()} <= {Path(name) for name in of_this_machine}
    assert {path.read_bytes() == (folder.path / path.relative_to(opened.path)).read_bytes()
            for path in opened.path.rglob("*") if path.is_file()} == {True}  # fmt: skip
    assert Checkpoints(opened).list() == [4, 6]


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_stop_then_resume_repeats_the_uninterrupted_losses_to_the_last_bit(trained, make_run, monkeypatch, dropout):
    whole, _ = trained(lora_dropout=dropout, max_steps=9)
    folder = make_run(lora_dropout=dropout, max_steps=9)
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 5)
        assert run_attempt(folder, 1) == 0
    stopped = read_status(folder)
    assert (stopped.state, stopped.step) == ("stopped", 5)
    assert Checkpoints(folder).complete(5)
    (answer,) = events(folder, "answer")
    assert answer["ok"] is True
    assert not list(folder.control.iterdir())
    assert next_attempt(folder) == 0
    assert read_status(folder).state == "finished"
    assert losses(folder) == losses(whole)
    tokens = [dict(zip(c.steps("tokens").tolist(), c.values("tokens").tolist(), strict=True))
              for c in (RunReader(folder).metrics(), RunReader(whole).metrics())]  # fmt: skip
    assert tokens[0] == tokens[1]


@pytest.mark.parametrize("steps", [6, 8])
def test_a_run_that_goes_on_from_its_last_step_makes_no_more(make_run, monkeypatch, steps):
    """It died between its last checkpoint and its result, at the end of an epoch or within one."""
    folder = make_run(max_steps=steps)
    with monkeypatch.context() as patch:
        patch.setattr("llf_core.training.session.save_run_result", lambda *_: 1 / 0)
        assert run_attempt(folder, 1) == 1
    before = losses(folder)
    (folder.path / "cache" / "trunk").mkdir(parents=True)  # as earlier versions left it
    assert next_attempt(folder) == 0
    assert losses(folder) == before
    assert not (folder.path / "cache").exists()
    assert read_status(folder).step == steps
    assert (folder.output / "adapter_model.safetensors").is_file()


def test_a_resumed_run_says_whether_it_makes_the_same_steps_again(make_run, monkeypatch):
    def broken_off(folder):
        with monkeypatch.context() as patch:
            stop_at(patch, folder, 6)
            run_attempt(folder, 1)
        shutil.rmtree(folder.checkpoints / "checkpoint-6")

    same, other = make_run(max_steps=9, save_steps=4), make_run(max_steps=9, save_steps=4)
    for folder in (same, other):
        broken_off(folder)
    assert next_attempt(same) == 0
    (receipt,) = events(same, "receipt")
    assert (receipt["from_step"], receipt["steps"], receipt["exact"], receipt["largest"]) == (4, 2, True, 0.0)
    other.metrics.write_text(
        "".join(
            json.dumps(line | {"values": line["values"] | {"loss": line["values"]["loss"] * (1 + 1e-3)}}) + "\n"
            for line in map(json.loads, other.metrics.read_text().splitlines())
            if "loss" in line["values"]
        )
    )
    assert next_attempt(other) == 0
    (receipt,) = events(other, "receipt")
    assert receipt["exact"] is False
    assert receipt["largest"] == pytest.approx(1e-3, rel=0.01)


def test_resume_repeats_the_losses_across_an_epoch_and_with_evaluation(trained, make_run, monkeypatch):
    changes = {
        "max_steps": None,
        "num_train_epochs": 3.0,
        "val_size": 0.25,
        "eval_strategy": "steps",
        "eval_steps": 2,
    }
    whole, _ = trained(**changes)
    folder = make_run(**changes)
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 7)
        run_attempt(folder, 1)
    next_attempt(folder)
    assert losses(folder) == losses(whole)
    evaluations = [[float(v).hex() for v in RunReader(f).metrics().values("eval_loss")] for f in (folder, whole)]
    assert evaluations[0] == evaluations[1]


def test_resume_computes_in_the_precision_of_the_attempt_before(trained, make_run, monkeypatch):
    """The probe is kept in a cache: timed anew, it may find the other precision faster."""
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 2.0)
    whole, _ = trained(use_cpu=True)
    folder = make_run(use_cpu=True)
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 3)
        run_attempt(folder, 1)
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 0.5)
    assert next_attempt(folder) == 0
    assert losses(folder) == losses(whole)
    resolved = yaml.safe_load(folder.resolved.read_text())
    assert (resolved["dtype"], resolved["autocast"]) == ("bfloat16", "bfloat16")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "resolved.yaml is not plain YAML: "),
        ("[]", "`device` in resolved.yaml is missing. Expected one of cpu, cuda, mps."),
        ("device: cpu\ndtype: foo", "`dtype` in resolved.yaml is 'foo'. Expected one of float32, bfloat16, float16."),
        ("device: cpu\ndtype: float32\ndata: 3", "`data.fingerprint` in resolved.yaml is missing. Expected a string."),
        (
            "device: cpu\ndtype: float32\ndata: {fingerprint: a}\ngradient_checkpointing: 7",
            "`gradient_checkpointing` in resolved.yaml is 7. Expected a mapping.",
        ),
        (
            "device: cpu\ndtype: float32\ndata: {fingerprint: a}\ngradient_checkpointing: {on: 7}",
            "`gradient_checkpointing.on` in resolved.yaml is 7. Expected true or false.",
        ),
    ],
)
def test_settings_of_the_attempt_before_that_are_none_are_told(make_run, text, said):
    folder = make_run()
    folder.resolved.write_text(text)
    with pytest.raises(ResolvedError) as raised:
        read_resolved(folder)
    assert str(raised.value).startswith(said)
    assert raised.value.what_to_do.startswith("Restore the file, or remove it")


def test_resume_with_other_data_is_a_warning(make_run, data_file, monkeypatch):
    folder = make_run()
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 3)
        run_attempt(folder, 1)
    data_file.write_text(json.dumps(json.loads(data_file.read_text())[1:]))
    assert next_attempt(folder) == 0
    (warning,) = events(folder, "warning")
    assert (warning["key"], warning["attempt"]) == ("dataset", 2)


def test_full_fine_tuning_and_freeze_learn(trained):
    for changes in ({"finetuning_type": "full"}, {"finetuning_type": "freeze", "freeze_trainable_layers": 1}):
        folder, code = trained(**changes, max_steps=12, learning_rate=5e-3)
        assert code == 0, read_status(folder).reason
        values = RunReader(folder).metrics().values("loss")
        assert values[-3:].mean() < values[:3].mean()
        assert (folder.output / "model.safetensors").is_file()


@pytest.mark.parametrize(
    "quantized",
    [
        {"quantization_bit": 4, "quantization_type": "nf4", "double_quantization": True},
        {"quantization_bit": 4, "quantization_type": "fp4", "double_quantization": False},
        {"quantization_bit": 8},
    ],
    ids=["nf4", "fp4", "int8"],
)
def test_qlora_learns_on_this_device(trained, quantized):
    folder, code = trained(**quantized, max_steps=12, learning_rate=1e-2)
    assert code == 0, read_status(folder).reason
    values = RunReader(folder).metrics().values("loss")
    assert values[-3:].mean() < values[:3].mean()


def test_early_stopping_ends_as_finished_and_says_so(trained):
    folder, code = trained(
        val_size=0.25, eval_strategy="steps", eval_steps=1, save_steps=1, early_stopping_steps=2,
        load_best_model_at_end=True, learning_rate=10.0, max_steps=30,
    )  # fmt: skip
    assert code == 0
    final = read_status(folder)
    assert final.state == "finished"
    assert final.step < 30
    assert "Early stopping" in final.reason
    assert final.best["metric"] == "eval_loss"


def test_an_evaluation_leaves_out_no_example_though_the_last_batch_of_an_epoch_is_dropped(trained):
    folder, code = trained(
        val_size=2, eval_strategy="steps", eval_steps=1, per_device_eval_batch_size=8, dataloader_drop_last=True,
        per_device_train_batch_size=1, max_steps=1,
    )  # fmt: skip
    assert code == 0, read_status(folder).reason
    assert len(RunReader(folder).metrics().values("eval_loss")) == 1


def test_a_loss_that_is_not_finite_is_logged_and_told_once(trained):
    folder, _ = trained(learning_rate=1e30, max_grad_norm=0.0, lr_scheduler_type="constant", finetuning_type="full")
    assert not all(math.isfinite(value) for value in RunReader(folder).metrics().values("loss"))
    assert [one.rule for one in Doctor(folder).look()].count("not_finite") == 1
    assert not any("loss is" in event["message"] for event in events(folder, "warning"))
    for line in folder.metrics.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_an_empty_data_set_fails_with_a_sentence_and_exit_code_2(trained, tmp_path):
    empty = tmp_path / "empty.json"
    empty.write_text("[]")
    folder, code = trained(dataset=str(empty))
    final = read_status(folder)
    assert (code, final.state) == (2, "failed")
    assert "empty.json" in final.reason
    assert "Traceback" not in final.reason


def test_training_goes_on_with_an_adapter(trained, capfd):
    first, _ = trained(max_steps=12, learning_rate=5e-3)
    second, code = trained(adapter_name_or_path=str(first.output), learning_rate=1e-6, print_param_status=True)
    assert code == 0, read_status(second).reason
    log = "".join(capfd.readouterr())
    path = "base_model.model.model.layers.0.self_attn.q_proj"
    assert f"{path}.lora_A.default.weight: 8 x 64, float32, cpu, trained\n" in log
    assert re.search(rf"{re.escape(path)}.base_layer.weight: 64 x 64, b?float\d\d, cpu, frozen\n", log)
    before, after = (RunReader(folder).metrics().values("loss") for folder in (first, second))
    assert after[0] < before[0]
    assert after[0] == pytest.approx(before[-1], rel=0.25)


def test_out_of_memory_names_the_smaller_batch():
    from llf_core.training.failures import explain_failure

    failure = explain_failure(torch.OutOfMemoryError("CUDA out of memory"))
    assert "memory" in failure.reason
    assert failure.exit_code == 1


def test_noise_on_embeddings_is_trained_with_and_not_evaluated_with(trained):
    changes = {"max_steps": 2, "val_size": 0.25, "learning_rate": 1e-30}
    quiet, noisy = (RunReader(trained(**changes, **more)[0]).metrics() for more in ({}, {"neftune_noise_alpha": 50.0}))
    assert abs(noisy.values("loss")[0] - quiet.values("loss")[0]) > 1e-3
    assert noisy.last("eval_loss") == pytest.approx(quiet.last("eval_loss"), rel=1e-6)


def test_a_saved_model_ends_its_answers_as_its_template_does(make_run):
    folder = make_run(max_steps=1, finetuning_type="full", template="chatml")
    assert run_attempt(folder, 1) == 0
    tokenizer = AutoTokenizer.from_pretrained(folder.output)
    generation = json.loads((folder.output / "generation_config.json").read_text())
    assert set(generation["eos_token_id"]) == set(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|im_start|>"]))
    assert tokenizer.eos_token == "<|im_end|>"


STREAMED = {"streaming": True, "buffer_size": 6, "max_steps": 9}


def test_a_streamed_run_resumes_beyond_its_first_pass_to_the_last_bit(trained, make_run, monkeypatch):
    whole, code = trained(**STREAMED)
    assert code == 0
    folder = make_run(**STREAMED)
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 7)  # 24 examples, 4 a step: in the second pass
        run_attempt(folder, 1)
    assert next_attempt(folder) == 0
    assert losses(folder) == losses(whole)
    assert len(losses(whole)) == 9
    (data,) = events(whole, "data")
    assert data["examples"] == 24
    assert yaml.safe_load(whole.resolved.read_text())["data"]["examples"] == 24


@pytest.mark.parametrize("workers", [1, 3])
def test_a_streamed_run_takes_any_number_of_loading_processes(trained, workers):
    plain, _ = trained(**STREAMED)
    folder, code = trained(**STREAMED, dataloader_num_workers=workers)
    assert code == 0
    assert losses(folder) == losses(plain)


def test_a_packed_stream_trains_and_evaluates(trained):
    folder, code = trained(**STREAMED, packing=True, cutoff_len=128, val_size=4, eval_strategy="steps", eval_steps=3)
    assert code == 0
    assert len(RunReader(folder).metrics().values("eval_loss")) == 3


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["saving"]),
        ({"val_size": 2, "eval_strategy": "steps", "eval_steps": 2}, ["evaluation", "saving"]),
        ({"val_size": 2, "eval_strategy": "no"}, ["evaluation", "saving"]),
        ({"val_size": 2, "eval_strategy": "epoch"}, ["evaluation", "saving"]),
    ],
)
def test_events_tell_evaluating_from_saving_after_the_last_step(trained, changes, expected):
    folder, code = trained(max_steps=2, **changes)
    assert code == 0
    events = RunReader(folder).events()
    after = events[max(place for place, event in enumerate(events) if event.get("name") == "first step") + 1 :]
    assert [event["name"] for event in after if event["type"] == "phase"] == expected
    kinds = [event.get("name", event["type"]) for event in after if event["type"] in {"phase", "evaluation", "output"}]
    assert kinds[-2:] == ["saving", "output"]

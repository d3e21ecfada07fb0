"""A reload that differs from what was saved: refused, or said where nobody can miss it."""

import json
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerState

from llf_core.config import RunConfig
from llf_core.evaluation.loaded_targets import load_base_and_tuned
from llf_core.evaluation.run_losses import losses as evaluated
from llf_core.launch.branch import branch
from llf_core.models import ModelError
from llf_core.models import checksums as module
from llf_core.models.checksums import checksums, differences
from llf_core.runs import Checkpoints, RunFolder, RunReader, read_status
from llf_core.runs.step_counters import COUNTERS
from llf_core.training.callbacks import early_stopping
from llf_core.training.checkpoint_check import check_archives
from llf_core.training.session import run_attempt
from tests.core.training.test_session import events, losses, next_attempt, stop_at

ADAPTER = "adapter_model.safetensors"


def flip_a_bit(path, name=None):
    """Flips the lowest bit of one number of a safetensors file; returns the tensor's name."""
    tensors = load_file(path)
    name = name or min(tensors)
    bits = tensors[name].view(torch.int32 if tensors[name].element_size() == 4 else torch.int16)
    bits.view(-1)[7] ^= 1
    save_file(tensors, path, {"format": "pt"})
    return name


@pytest.fixture
def stopped(make_run, monkeypatch):
    """`stopped(**changes) -> RunFolder`: a run that was stopped at step 3 and has a checkpoint of step 2 too."""

    def make(**changes):
        folder = make_run(**changes)
        with monkeypatch.context() as patch:
            stop_at(patch, folder, 3)
            assert run_attempt(folder, 1) == 0
        return folder

    return make


def test_any_bit_of_any_tensor_counts():
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int8):
        for shape in ((), (3,), (5, 7), (1 << 19,)):
            one = (torch.randn(shape) * 50).to(dtype)
            expected = json.loads(json.dumps(checksums({"one": one})))
            assert differences(expected, {"one": one, "two": one}) == []
            for place in {0, one.numel() - 1}:
                other = one.clone()
                bits = other.reshape(-1).view(torch.uint8)
                bits[place * one.element_size()] ^= 1
                assert [found.name for found in differences(expected, {"one": other})] == ["one"]
    rows = torch.arange(8.0).reshape(4, 2)
    assert differences(checksums({"rows": rows}), {"rows": rows.flip(0)})
    assert differences(checksums({"half": rows.bfloat16()}), {"half": rows}) == []
    assert str(differences(checksums({"rows": rows}), {})[0]) == "rows (missing)"


def test_tensors_that_are_copied_together_have_the_checksums_of_each(monkeypatch):
    """As of an accelerator: many at a time, in one dtype each time."""
    tensors = {f"{n}": torch.randn(n, 3).to(torch.bfloat16 if n > 3 else torch.float32) for n in range(1, 6)}
    flats = [(name, one.reshape(-1)) for name, one in tensors.items()]
    groups = [flats[:3], flats[3:]]
    monkeypatch.setattr(module, "_on_cpu", lambda _: [pair for group in groups for pair in module._moved(group)])
    together = checksums(tensors)
    monkeypatch.undo()
    assert together == checksums(tensors)


@pytest.mark.parametrize("changes", [{}, {"finetuning_type": "full"}], ids=["lora", "full"])
def test_a_resume_refuses_weights_of_which_one_bit_has_changed(stopped, changes):
    folder = stopped(**changes)
    checkpoint = folder.checkpoints / "checkpoint-3"
    name = flip_a_bit(checkpoint / ("model.safetensors" if changes else ADAPTER))
    assert next_attempt(folder) == 2
    reason = read_status(folder).reason
    assert reason.startswith("checkpoint-3 does not load as it was saved: ")
    assert name.replace("lora_A.weight", "lora_A.default.weight") in reason
    assert "expected" in reason
    assert "Branch from another checkpoint (of step 2)" in reason
    other = branch(folder, 2)
    assert run_attempt(other, 1) == 0
    assert read_status(other).state == "finished"
    assert read_status(other).reason is None


def test_a_resume_refuses_an_optimizer_of_which_one_bit_has_changed(stopped):
    folder = stopped()
    path = folder.checkpoints / "checkpoint-3" / "optimizer.pt"
    largest = max(zipfile.ZipFile(path).infolist(), key=lambda part: part.file_size)
    held = bytearray(path.read_bytes())
    held[largest.header_offset + 400 + largest.file_size // 2] ^= 1  # beyond the header of the part, which is small
    path.write_bytes(held)
    torch.load(path, weights_only=True)  # torch itself does not see it
    assert next_attempt(folder) == 2
    reason = read_status(folder).reason
    assert reason.startswith(f"checkpoint-3/optimizer.pt is damaged: {largest.filename} does not match its checksum.")
    assert "Branch from another checkpoint (of step 2)" in reason


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"{", b"["),
        (b'"log_history"', b'"log_histery"'),
        (b'"EarlyStoppingCallback": {', b'"EarlyStoppingCallback":7,"a":{'),
        (b'"other": {}', b'"other": ' + b"[" * 100 + b"]" * 100),
        (b'"other": {}', b'"other": ' + b"[" * 100_000 + b"]" * 100_000),
    ],
)
def test_a_resume_refuses_a_state_of_the_trainer_of_which_a_byte_has_changed(tmp_path, old, new):
    state = TrainerState(stateful_callbacks={"EarlyStoppingCallback": {"attributes": {}}, "other": {}})
    checkpoint = tmp_path / "checkpoint-3"
    checkpoint.mkdir()
    path = checkpoint / "trainer_state.json"
    state.save_to_json(path)
    assert early_stopping(2, checkpoint).early_stopping_patience_counter == 0
    path.write_bytes(path.read_bytes().replace(old, new, 1))
    with pytest.raises(ModelError, match=r"checkpoint-3/trainer_state\.json is damaged: .* Branch from another"):
        early_stopping(2, checkpoint)


def test_tensors_without_a_header_are_damaged(tmp_path):
    path = Checkpoints(RunFolder(tmp_path)).path(3) / "method.safetensors"
    path.parent.mkdir(parents=True)
    save_file({"ranks": torch.ones(3)}, path)
    check_archives(Checkpoints(RunFolder(tmp_path)), 3)
    path.write_bytes(path.read_bytes().replace(b"{", b"\xff", 1))
    with pytest.raises(ModelError, match=r"checkpoint-3/method\.safetensors is damaged: .* start a new run"):
        check_archives(Checkpoints(RunFolder(tmp_path)), 3)


def test_an_archive_with_another_compression_than_it_was_written_with_is_damaged(tmp_path):
    checkpoints = Checkpoints(RunFolder(tmp_path))
    path = checkpoints.path(3) / "optimizer.pt"
    path.parent.mkdir(parents=True)
    torch.save({"weight": torch.ones(100)}, path)
    held = bytearray(path.read_bytes())
    held[held.index(b"PK\x01\x02") + 10] = zipfile.ZIP_DEFLATED
    path.write_bytes(held)
    with pytest.raises(ModelError, match=r"checkpoint-3/optimizer\.pt is damaged: the archive itself"):
        check_archives(checkpoints, 3)


@pytest.mark.parametrize("changes", [{("PK\x01\x02", 9): 0x08, ("PK\x01\x02", 46): 0xFF}, {("data", 8): 0xFF}])
def test_an_archive_with_names_or_settings_that_cannot_be_read_is_damaged(tmp_path, changes):
    """A name that is no UTF-8 although the entry says so, and properties that no LZMA stream has."""
    checkpoints = Checkpoints(RunFolder(tmp_path))
    path = checkpoints.path(3) / "optimizer.pt"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("data", bytes(1000))
    held = bytearray(path.read_bytes())
    for (mark, after), value in changes.items():
        held[held.index(mark.encode("latin-1")) + after] = value
    path.write_bytes(held)
    with pytest.raises(ModelError, match=r"checkpoint-3/optimizer\.pt is damaged: the archive itself"):
        check_archives(checkpoints, 3)


def test_a_resume_refuses_what_peft_leaves_out(stopped, monkeypatch):
    import peft

    folder = stopped()
    original = peft.peft_model.set_peft_model_state_dict

    def forgetful(model, weights, *args, **kwargs):
        left = {name: one for name, one in weights.items() if "layers.1.self_attn.v_proj.lora_B" not in name}
        return original(model, left, *args, **kwargs)

    monkeypatch.setattr(peft.peft_model, "set_peft_model_state_dict", forgetful)
    assert next_attempt(folder) == 2
    assert "layers.1.self_attn.v_proj.lora_B.default.weight (expected sum " in read_status(folder).reason
    assert RunReader(folder).metrics().last("loss") is not None
    assert Checkpoints(folder).list() == [2, 3]


def change_counters(folder, change):
    """Changes the counters of checkpoint-3, as a tool that also updates `complete.json` does."""
    path = folder.checkpoints / "checkpoint-3" / COUNTERS
    kept = json.loads(path.read_text())
    change(kept)
    path.write_text(json.dumps(kept))
    checkpoint = folder.checkpoints / "checkpoint-3" / "complete.json"
    facts = json.loads(checkpoint.read_text())
    facts["files"][COUNTERS] = path.stat().st_size
    checkpoint.write_text(json.dumps(facts))


@pytest.mark.parametrize("changes", [{"seen": ["many", -1]}, {"gradient_accumulation_steps": "2"}, {"held": 5}])
def test_a_resume_refuses_counters_of_other_types(stopped, changes):
    folder = stopped()
    change_counters(folder, lambda kept: kept.update(changes))
    assert next_attempt(folder) == 2
    ((key, value),) = changes.items()
    status = read_status(folder)
    assert status.state == "failed"
    assert status.reason.startswith(f"`{key}` in checkpoint-3/{COUNTERS} is {value!r}. Expected ")
    assert status.reason.endswith("Branch from another checkpoint, or start a new run.")
    assert Checkpoints(folder).list() == [2, 3]


def test_a_resume_without_counters_has_the_same_losses(stopped, trained):
    whole, _ = trained()
    folder = stopped()
    change_counters(folder, lambda kept: kept.clear())
    assert next_attempt(folder) == 0
    assert losses(folder) == losses(whole)


def test_fewer_accumulated_batches_than_the_config_asks_for_are_whole_batches(stopped):
    folder = stopped(gradient_accumulation_steps=2)
    change_counters(folder, lambda kept: kept.update(gradient_accumulation_steps=1))
    assert next_attempt(folder) == 0
    assert read_status(folder).state == "finished"


def test_a_checkpoint_without_checksums_is_gone_on_with_and_everybody_is_told(stopped, trained, capsys):
    whole, _ = trained()
    folder = stopped()
    change_counters(folder, lambda kept: kept.pop("tensors"))
    assert next_attempt(folder) == 0
    assert losses(folder) == losses(whole)
    said = "checkpoint-3 has no checksums"
    assert [event["message"] for event in events(folder, "warning") if event["message"].startswith(said)]
    assert said in capsys.readouterr().out
    assert read_status(folder).reason.startswith(said)


def test_losses_that_differ_are_said_in_state_log_and_events(make_run, monkeypatch, capsys):
    folder = make_run(save_steps=2)
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 3)
        run_attempt(folder, 1)
    Checkpoints(folder).remove(3)
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    for line in lines:
        if line["step"] == 3 and "loss" in line["values"]:
            line["values"]["loss"] *= 1.01
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert next_attempt(folder) == 0
    said = "The repeated step differs from the log by up to 0.99 %"
    assert read_status(folder).reason.startswith(said)
    assert said in capsys.readouterr().out
    assert any(event["message"].startswith(said) for event in events(folder, "warning"))


def test_the_best_checkpoint_is_compared_too(make_run, monkeypatch):
    changes = {"val_size": 0.25, "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True}
    folder = make_run(**changes)
    from llf_core.training.metrics_callback import MetricsCallback

    original = MetricsCallback.on_save

    def on_save(self, args, state, control, **kwargs):
        original(self, args, state, control, **kwargs)
        if state.global_step == 6:
            flip_a_bit(self.checkpoints.path(state.best_global_step) / ADAPTER)

    good = make_run(**changes)
    assert run_attempt(good, 1) == 0
    monkeypatch.setattr(MetricsCallback, "on_save", on_save)
    assert run_attempt(folder, 1) == 2
    assert "does not load as it was saved" in read_status(folder).reason


def test_an_adapter_that_peft_would_not_load_again_is_refused_before_the_first_step(
    make_run, tiny_tokenizer, tmp_path, monkeypatch
):
    """PEFT renames `shared_expert` in the weights of Laguna also where they are called `shared_experts` already.

    Where that is foreseen, `all` leaves them out; whatever else is not loaded again is seen by loading it.
    """
    transformers = pytest.importorskip("transformers.models.laguna")
    config = transformers.LagunaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        intermediate_size=64,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=256,
    )
    transformers.LagunaForCausalLM(config).save_pretrained(tmp_path / "laguna")
    tiny_tokenizer.save_pretrained(tmp_path / "laguna")
    asked = {"model_name_or_path": str(tmp_path / "laguna"), "max_steps": 2, "use_cpu": True}
    monkeypatch.setattr("llf_core.methods.adapter_targets._lost", lambda *_: set())
    folder = make_run(**asked, lora_target="q_proj,down_proj")
    assert run_attempt(folder, 1) == 2
    reason = read_status(folder).reason
    assert "would not load the adapter completely after saving it" in reason
    assert "shared_experts.down_proj.lora_A.default.weight" in reason
    assert "Set lora_target: down_proj," not in reason
    assert "q_proj, or use another model." in reason
    assert RunReader(folder).metrics().last("loss") is None
    folder = make_run(**asked, lora_target="q_proj")
    assert run_attempt(folder, 1) == 0, read_status(folder).reason


@pytest.fixture(params=["lora", "full"])
def finished(request, trained):
    """A run with a result, and the file of its weights."""
    folder, code = trained(finetuning_type=request.param, max_steps=2, val_size=0.25)
    assert code == 0
    return folder, folder.output / ("model.safetensors" if request.param == "full" else ADAPTER)


def test_the_result_is_as_the_run_wrote_it_wherever_it_is_loaded(finished):
    folder, file = finished
    config = RunConfig.load(folder.config)
    assert len(list(load_base_and_tuned(folder, config))) == 2
    before = evaluated(folder)
    assert before.tuned != before.base
    name = flip_a_bit(file)
    said = f"does not load as the run saved it: {name.replace('A.weight', 'A.default.weight')} (expected "
    for load in (lambda: list(load_base_and_tuned(folder, config)), lambda: evaluated(folder)):
        with pytest.raises(ModelError) as error:
            load()
        assert said in str(error.value)
    folder.output_record.unlink()  # of an older version
    assert len(list(load_base_and_tuned(folder, config))) == 2


def test_a_result_that_was_not_written_as_trained_fails_the_run(make_run, monkeypatch):
    from llf_core.models import save_result

    folder = make_run(max_steps=2)
    original = save_result._save_adapter

    def torn(model, path, *args, **kwargs):
        original(model, path, *args, **kwargs)
        flip_a_bit(path / ADAPTER)

    monkeypatch.setattr(save_result, "_save_adapter", torn)
    assert run_attempt(folder, 1) == 2
    assert "The files of the result differ from the trained weights: " in read_status(folder).reason
    assert not folder.output.exists()
    monkeypatch.setattr(save_result, "_save_adapter", original)
    assert next_attempt(folder) == 0
    assert folder.output_record.is_file()


@pytest.mark.long
def test_a_merged_result_and_a_reward_model_are_compared(make_run, trained, pairs):
    base, _ = trained(max_steps=1)
    for changes in (
        {"adapter_name_or_path": str(base.output), "create_new_adapter": True},
        {"stage": "rm", "dataset": pairs, "finetuning_type": "full"},
        {"stage": "rm", "dataset": pairs},
    ):
        folder, code = trained(**changes, max_steps=2, val_size=0.25)
        assert code == 0, read_status(folder).reason
        assert json.loads(folder.output_record.read_text())["tensors"]
        evaluated(folder)

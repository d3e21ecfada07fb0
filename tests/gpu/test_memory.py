"""Memory that runs out, and memory that is forecast."""

from __future__ import annotations

import json
from contextlib import contextmanager

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from llf_core.models.memory import is_out_of_memory
from llf_core.runs import read_status
from llf_core.stages.sft import SFT
from llf_core.training import trainer
from tests.core.training.cramped import ABSURD, cramped
from tests.core.training.small_trainer import examples, make_trainer
from tests.gpu.conftest import ON_CPU, events

SHARE = 0.6  # of what the whole batch needs: a half fits


@contextmanager
def at_most(peak):
    """Has the card's allocator refuse more than that many bytes."""
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(peak / total, 1.0))
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()


def test_what_the_allocator_raises_is_known(device):
    with pytest.raises(RuntimeError) as error:
        torch.empty(ABSURD, dtype=torch.uint8, device=device)
    assert is_out_of_memory(error.value)
    assert isinstance(error.value, torch.OutOfMemoryError) == (device.type == "cuda")


def test_a_step_that_does_not_fit_is_made_again_in_parts(tiny_model_dir, tiny_tokenizer, tmp_path, device):
    lengths, batch = ([48] * 8, 8) if ON_CPU else ([1000] * 32, 32)

    def made(name, stage=SFT):
        return make_trainer(
            tiny_model_dir, tiny_tokenizer, examples(lengths), tmp_path / name, batch=batch, accumulation=1, epochs=2,
            use_cpu=ON_CPU, stage=stage,
        )  # fmt: skip

    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    free, expected = made("free")
    free.train()
    del free
    trainer, losses = made("limited", cramped(batch // 2) if ON_CPU else SFT)
    told = []
    trainer.tell = lambda key, sentence: told.append((key, sentence))
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated() - before
        with at_most(torch.cuda.memory_allocated() + SHARE * peak):
            trainer.train()
        assert torch.cuda.max_memory_reserved() > 0
    else:
        trainer.train()
    assert trainer.train_parts.count >= 2
    assert len(told) >= 1
    assert told[0][0] == "per_device_train_batch_size"
    assert "This step is repeated" in told[0][1]
    # On a card the sums of float32 are made in another order, and some of its kernels add as they come.
    assert losses.values == pytest.approx(expected.values, rel=1e-6 if ON_CPU else 1e-4)
    assert trainer.seen.tolist() == [2 * sum(lengths), 2 * sum(length - length // 2 for length in lengths)]


def test_the_forecast_is_what_a_step_takes(trained, tiny_tokenizer, tmp_path, device, monkeypatch, note):
    """On a card against the allocator's peak, on a CPU against what autograd keeps of the forward pass."""
    layers, width, length, batch = (2, 64, 120, 4) if ON_CPU else (12, 512, 1000, 16)
    config = LlamaConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=width, intermediate_size=width * 3, num_hidden_layers=layers,
        num_attention_heads=width // 32, num_key_value_heads=width // 64, max_position_embeddings=1024,
        bos_token_id=tiny_tokenizer.bos_token_id, eos_token_id=tiny_tokenizer.eos_token_id,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    path = tmp_path / "long.json"
    path.write_text(json.dumps([{"instruction": f"{i}?", "output": "abc xyz " * length} for i in range(batch)]))
    kept = []
    if ON_CPU:
        plain = trainer.RunTrainer.compute_loss

        def compute_loss(self, model, *args, **kwargs):
            own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
            found = {}

            def pack(tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in own:
                    found[storage.data_ptr()] = storage.nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                loss = plain(self, model, *args, **kwargs)
            kept.append(sum(found.values()))
            return loss

        monkeypatch.setattr(trainer.RunTrainer, "compute_loss", compute_loss)
        before = 0
    else:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    folder, code = trained(
        model_name_or_path=str(tmp_path / "model"), dataset=str(path), cutoff_len=length, max_steps=2,
        per_device_train_batch_size=batch, gradient_accumulation_steps=1, gradient_checkpointing=False, bf16=True,
    )  # fmt: skip
    assert code == 0, read_status(folder).reason
    (forecast,) = events(folder, "memory")
    assert forecast["tokens"] == batch * length
    if ON_CPU:
        assert max(kept) < 1.1 * forecast["step"]
        assert forecast["step"] < 4 * max(kept)
        return
    peak = torch.cuda.max_memory_allocated() - before
    note(f"forecast {forecast['forecast'] / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB: {forecast['forecast'] / peak:.2f}")
    assert forecast["available"] > peak
    # Room for the work space of cuBLAS, which is as large for a small model as for a large one.
    assert peak < 1.15 * forecast["forecast"] + 80e6
    assert forecast["forecast"] < 1.5 * peak

"""The forecast of a run from its config alone: its parts by hand, its changes, its text; on devices that are given."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset

from llf_core.config import RunConfig
from llf_core.config.weight_shapes import ModelSizeError
from llf_core.estimate import Device, ExampleLengths, Forecaster, check_fit, device_speed
from llf_core.estimate import forecaster as forecaster_module
from llf_core.estimate.example_lengths import of_lengths
from llf_core.estimate.planned_step import CUDA_CONTEXT, largest_step
from llf_core.stages.ppo.stage import Plan
from llf_core.training.memory_plan import largest_batch

SEVEN_B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
PARAMETERS = 6_738_415_616
OUTER = 2 * 32000 * 4096 + 4096
HEAVY = {
    "torch", "transformers", "tokenizers", "datasets", "accelerate", "peft", "trl", "huggingface_hub", "pandas",
    "pyarrow", "scipy", "sklearn", "matplotlib", "PIL", "jinja2", "IPython", "asyncio", "sqlite3",
    "llf_core.data.collate", "llf_core.data.preparation", "llf_core.data.encoder", "llf_core.data.build",
    "llf_core.data.report", "llf_core.launch.supervisor",
}  # fmt: skip
"""Modules that take long to import and that a forecast needs none of."""
GPU = Device("cuda", "NVIDIA A100-SXM4-40GB", 40 << 30, 39 << 30, bf16=True)
CPU = Device("cpu", "a CPU", 64 << 30, 60 << 30)


@pytest.fixture
def seven_b(tmp_path: Path) -> str:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SEVEN_B))
    return str(folder)


def config(model: str, **more: object) -> RunConfig:
    return RunConfig.load({"model_name_or_path": model, "dataset": "llf_demo", "cutoff_len": 512, **more})


def all_long(examples: int = 1000, tokens: int = 512) -> ExampleLengths:
    return of_lengths(np.full(examples, tokens), basis="Equal ones.", exact=True)


def test_parts_of_lora_by_hand(seven_b: str) -> None:
    found = check_fit(config(seven_b, lora_rank=8, per_device_train_batch_size=1), all_long(), (GPU, CPU))
    # A and B of q, k, v, o (4096 x 4096) and of gate, up, down (4096 x 11008) in each layer.
    trained = 8 * 32 * (4 * 8192 + 3 * (4096 + 11008))
    assert found.memory is not None
    assert found.memory.weights == 2 * PARAMETERS
    assert found.memory.adapters == 4 * trained
    assert found.memory.gradients == 4 * trained
    assert found.memory.optimizer == 8 * trained
    assert found.memory.workspace == CUDA_CONTEXT
    assert found.memory.total == sum(
        (found.memory.weights, found.memory.adapters, found.memory.gradients, found.memory.optimizer,
         found.memory.activations, found.memory.logits, found.memory.workspace)
    )  # fmt: skip
    assert found.fits
    assert found.rooms[0].needed == found.memory.total
    assert found.rooms[1].needed == 0
    assert found.precision == "bfloat16, which this GPU computes in"


def test_parts_of_full_fine_tuning_by_hand(seven_b: str) -> None:
    pure = check_fit(config(seven_b, finetuning_type="full", pure_bf16=True), all_long(), (GPU,)).memory
    mixed = check_fit(config(seven_b, finetuning_type="full", bf16=True), all_long(), (GPU,)).memory
    assert pure is not None
    assert mixed is not None
    assert (pure.weights, pure.gradients, pure.optimizer) == (2 * PARAMETERS, 2 * PARAMETERS, 4 * PARAMETERS)
    # float32 weights and gradients, and autocast's copies in bfloat16 beside the gradients
    assert (mixed.weights, mixed.gradients, mixed.optimizer) == (4 * PARAMETERS, 6 * PARAMETERS, 8 * PARAMETERS)


def test_a_trained_embedding_brings_the_gradient_to_the_first_layer(seven_b: str) -> None:
    keys = {"finetuning_type": "freeze", "freeze_trainable_layers": 2, "freeze_trainable_modules": "mlp"}
    some, head, both = (
        Forecaster(config(seven_b, **keys, freeze_extra_modules=extra), all_long(), GPU).step
        for extra in (None, "lm_head", "embed_tokens,lm_head")
    )
    assert some is not None
    assert head is not None
    assert both is not None
    assert (some.training.first, head.training.first, both.training.first) == (30, 30, 0)
    assert some.trained == 2 * 3 * 4096 * 11008
    assert both.trained - head.trained == head.trained - some.trained == 32000 * 4096


def test_quantized_layers_and_a_second_model_are_counted(seven_b: str) -> None:
    quantized = check_fit(config(seven_b, quantization_bit=4, bf16=True), all_long(), (GPU,)).memory
    assert quantized is not None
    assert quantized.weights == int(2 * OUTER + 0.52 * (PARAMETERS - OUTER))
    dpo = {"stage": "dpo", "dataset": "llf_demo_pairs", "pure_bf16": True}
    full = check_fit(config(seven_b, finetuning_type="full", **dpo), all_long(), (GPU,)).memory
    adapter = check_fit(config(seven_b, **dpo), all_long(), (GPU,)).memory
    assert full is not None
    assert adapter is not None
    assert full.weights == 2 * PARAMETERS  # the model is its own reference before the first step
    assert adapter.weights == 2 * PARAMETERS  # the reference is the model without its adapter


def test_the_weights_of_a_reference_count_where_it_stays_beside_the_model(seven_b: str, tmp_path: Path) -> None:
    def weights(**keys: object) -> float:
        found = check_fit(config(seven_b, pure_bf16=True, **keys), all_long(), (GPU,)).memory
        assert found is not None
        return found.weights / PARAMETERS

    full = {"finetuning_type": "full"}
    dpo = {"stage": "dpo", "dataset": "llf_demo_pairs"}
    assert weights(**full, **dpo, precompute_ref_log_probs=False) == 4
    assert weights(**full, **dpo, max_steps=1) == 4  # most examples never come
    assert weights(**full, **dpo, max_steps=1, precompute_ref_log_probs=True) == 2
    assert weights(**full, **dpo, pref_loss="simpo", precompute_ref_log_probs=False) == 2
    assert weights(**full, use_asft_loss=True) == 4
    sampled = {"reward_functions": "length", **full}
    assert weights(**sampled, stage="grpo") == 2
    assert weights(**sampled, stage="grpo", beta=0.1) == 4
    assert weights(**sampled, stage="rloo") == 4
    assert weights(**sampled, stage="rloo", beta=0.0) == 2
    # in 4 bits the layers have half a byte and scales of 1 / 50
    small = (2 * OUTER + 0.52 * (PARAMETERS - OUTER)) / PARAMETERS
    assert weights(**dpo, ref_model=seven_b, ref_model_quantization_bit=4) == pytest.approx(2 + small)
    assert weights(**dpo, ref_model_quantization_bit=4) == pytest.approx(2 + small)
    assert weights(**dpo, ref_model_adapters=str(tmp_path)) == 4
    ppo = {"stage": "ppo", "reward_model": seven_b, "reward_model_type": "full"}
    assert weights(**ppo) == 4  # policy and reward model
    assert weights(**ppo, ref_model=seven_b) == 6
    adapter = {**ppo, "reward_model": str(tmp_path / "adapter-of-7b"), "reward_model_type": "lora"}
    assert weights(**adapter) == 2
    assert weights(**adapter, ppo_models="separate") == 8  # policy, value model, reference and reward model
    assert weights(**ppo, **full, ppo_models="separate") == 8


def test_a_value_model_of_its_own_is_trained_like_the_policy(seven_b: str) -> None:
    ppo = {"stage": "ppo", "reward_model": seven_b, "reward_model_type": "full", "lora_rank": 8}
    one, two = (
        check_fit(config(seven_b, **ppo, ppo_models=models), all_long(), (GPU,)).memory
        for models in ("shared", "separate")
    )
    assert one is not None
    assert two is not None
    assert (two.adapters, two.gradients, two.optimizer) == (2 * one.adapters, 2 * one.gradients, 2 * one.optimizer)


def test_the_pages_of_the_files_count_while_a_model_is_quantized(seven_b: str) -> None:
    """On a CPU: the process, the quantized weights, and the files in 16 bits, which do not decide whether it fits."""
    small = Device("cpu", "a CPU", 16 << 30, 10 << 30)
    quantized = config(seven_b, quantization_bit=4, bf16=True, use_cpu=True)
    found = check_fit(quantized, all_long(), (small,))
    assert found.memory is not None
    assert found.loading is not None
    assert found.loading.mapped == 2 * PARAMETERS
    assert found.loading.total == 530_000_000 + 130_000_000 + found.memory.weights + 2 * PARAMETERS
    assert found.peak == found.loading.total > small.total > found.memory.total
    assert found.fits
    assert "While the model is loaded and quantized, the process takes up to 18.0 GB. 13.5 GB of it" in found.text()
    loading = {"total": found.loading.total, "mapped": found.loading.mapped, "alone": False, "beside": False}
    assert found.json()["loading"] == loading
    for other in (check_fit(quantized.replace(use_cpu=False), all_long(), (GPU,)),
                  check_fit(config(seven_b, bf16=True, use_cpu=True), all_long(), (CPU,))):  # fmt: skip
        assert other.loading is None
        assert other.memory is not None
        assert other.peak == other.memory.total


def test_the_solver_of_hqq_counts_for_the_largest_layer(seven_b: str) -> None:
    pytest.importorskip("hqq")
    keys = {"quantization_bit": 4, "quantization_method": "hqq", "bf16": True, "use_cpu": True}
    found = check_fit(config(seven_b, **keys), all_long(), (Device("cpu", "a CPU", 16 << 30, 10 << 30),))
    assert found.memory is not None
    assert found.loading is not None
    beside = found.loading.total - 530_000_000 - found.memory.weights - 2 * PARAMETERS
    assert beside == 1.5 * 9 * 4 * 4096 * 11008


def test_a_run_fits_if_the_solver_of_hqq_does(seven_b: str) -> None:
    """Short examples need less memory in training than the solver while the model is quantized."""
    pytest.importorskip("hqq")
    keys = {"quantization_bit": 4, "quantization_method": "hqq", "bf16": True, "use_cpu": True, "cutoff_len": 64}
    keys["per_device_train_batch_size"] = 1
    small, large = (
        check_fit(config(seven_b, **keys), all_long(tokens=64), (Device("cpu", "a CPU", 16 << 30, free),))
        for free in (7_000_000_000, 9_000_000_000)
    )
    for found in (small, large):
        assert found.memory is not None
        assert found.loading is not None
        assert found.memory.total < 0.9 * 7_000_000_000 < found.rooms[0].needed
        assert found.rooms[0].needed == found.loading.total - found.loading.mapped
    assert not small.fits
    assert large.fits


def test_padding_is_the_mean_of_the_longest_of_a_batch() -> None:
    lengths = of_lengths(np.array([10, 20, 30]), basis="", exact=True)
    pairs = [max(one, other) for one in (10, 20, 30) for other in (10, 20, 30)]
    assert lengths.padding(2, 512) == pytest.approx(np.mean(pairs) / 20)
    assert lengths.padding(2, 20) == pytest.approx(np.mean(np.minimum(pairs, 20)) / np.mean([10, 20, 20]))
    assert lengths.padding(1, 512) == pytest.approx(1)


def test_a_padded_step_takes_longer_than_a_flattened_one(seven_b: str) -> None:
    """With padding 2000 tokens an example, as the longest of 64, and 1010 without."""
    lengths = of_lengths(np.array([20, 2000]), 1000, basis="", exact=True)
    keys = {"per_device_train_batch_size": 64, "cutoff_len": 2048, "max_steps": 1}
    plain, padded = (
        check_fit(config(seven_b, fast_path=fast, **keys), lengths, (GPU,)).duration for fast in (True, False)
    )
    assert plain is not None
    assert padded is not None
    assert padded.step_seconds / plain.step_seconds == pytest.approx(2000 / 1010, rel=0.02)
    forecaster = Forecaster(config(seven_b, fast_path=False, **keys), lengths, GPU)
    seconds = []
    for above in (2000, 1999):  # of a model with indexed attention, see `ModelSizes.unpadded_above`
        assert forecaster.step is not None
        forecaster.step = replace(forecaster.step, sizes=replace(forecaster.step.sizes, unpadded_above=above))
        found = forecaster.duration(checkpointing=True)
        assert found is not None
        seconds.append(found.step_seconds)
    assert seconds[0] / seconds[1] == pytest.approx(2000 / 1010, rel=0.02)


def test_on_a_cpu_what_is_not_a_product_takes_the_time_of_sums(seven_b: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`PASSES` sums of each value of a layer, of which the forward pass, made again with checkpointing, is a third."""
    lengths = of_lengths(np.array([100]), basis="", exact=True)
    keys = {
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 1,
        "bf16": False,
        "finetuning_type": "full",
    }
    seconds = []
    for speed, checkpointing in ((1e9, False), (2e9, False), (1e9, True), (2e9, True)):
        monkeypatch.setattr(forecaster_module, "cpu_values", lambda speed=speed: speed)
        found = Forecaster(config(seven_b, **keys), lengths, CPU).duration(checkpointing=checkpointing)
        assert found is not None
        seconds.append(found.step_seconds)
    inner = 4 * 4096 + 3 * 11008  # queries, keys, values and output; gate, up and down
    sums = 32 * 100 * inner * forecaster_module.PASSES
    assert seconds[0] - seconds[1] == pytest.approx(sums / 2e9)
    assert seconds[2] - seconds[3] == pytest.approx(sums / 2e9 * 4 / 3)


def test_a_gpu_without_bfloat16_is_not_offered_to_train_in_it(seven_b: str) -> None:
    def labels(*, bf16: bool) -> str:
        gpu = Device("cuda", "a GPU", 80 << 30, 75 << 30, bf16=bf16)
        found = check_fit(config(seven_b, finetuning_type="full", per_device_train_batch_size=1), all_long(), (gpu,))
        return " ".join(one.label for one in found.changes)

    assert "bfloat16 alone" in labels(bf16=True)
    assert "bfloat16 alone" not in labels(bf16=False)


def test_twice_the_threads_halve_the_time_of_products_up_to_one_a_core(
    seven_b: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_speed, "thread_flops", lambda: 1e9)
    monkeypatch.setattr(device_speed, "cores", lambda: 4)
    monkeypatch.setattr(forecaster_module, "cpu_values", lambda: 1e9)
    seconds = []
    for threads in (1, 2, 4, 64):
        found = Forecaster(config(seven_b, bf16=False, threads=threads), all_long(), CPU).duration(checkpointing=False)
        assert found is not None
        seconds.append(found.step_seconds)
    one, two, four, many = seconds
    assert one - two == pytest.approx(2 * (two - four))
    assert many == four


def test_the_largest_step_counts_the_longest_examples_pairs_and_completions(seven_b: str) -> None:
    lengths = of_lengths(np.array([10, 20, 700, 300]), basis="", exact=True)
    two = config(seven_b, per_device_train_batch_size=2)
    assert largest_step(two, lengths) == (512 + 300, 512)
    assert largest_step(two.replace(packing=True), lengths) == (2 * 512, 512)
    pairs = two.replace(stage="dpo", dataset="llf_demo_pairs")
    assert largest_step(pairs, lengths) == (2 * (512 + 300), 512)
    assert largest_step(two.replace(fast_path=False), lengths) == (2 * 512, 512)
    assert largest_step(two.replace(fast_path=False), lengths, unpadded_above=511) == (512 + 300, 512)
    assert largest_step(two.replace(streaming=True, max_steps=9, cutoff_len=1024), lengths) == (2 * 1024, 1024)


@pytest.mark.parametrize(("stage", "data"), [("sft", "llf_demo"), ("kto", "llf_demo_pairs"), ("dpo", "llf_demo_pairs")])
@pytest.mark.parametrize("batch", [2, 8])
def test_the_largest_step_is_that_of_the_prepared_data(seven_b: str, stage: str, data: str, batch: int) -> None:
    own = [100, 100, 1000]
    lengths = of_lengths(np.array(own), basis="", exact=True)
    rows = {"input_ids": [[0] * one for one in own]}
    if stage == "dpo":
        rows["rejected_ids"] = rows["input_ids"]
    for fast in (True, False):
        found = largest_step(config(
            seven_b, stage=stage, dataset=data, per_device_train_batch_size=batch, fast_path=fast, cutoff_len=2048
        ), lengths)  # fmt: skip
        assert found == largest_batch(Dataset.from_dict(rows), batch, flattens=fast, twice=stage == "kto")


def test_quantiles_stand_for_several_examples() -> None:
    # 200 quantiles of 4,000 examples: each stands for 20
    many = of_lengths(np.arange(4000) + 1, basis="", exact=True)
    assert many.largest_batch(20, 10_000) == 20 * 4000
    assert many.largest_batch(40, 10_000) < 40 * 4000


def test_steps_follow_from_examples_batch_epochs_and_packing(seven_b: str) -> None:
    def steps(lengths: ExampleLengths, **more: object) -> int | None:
        base = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "num_train_epochs": 3}
        return Forecaster(config(seven_b, **{**base, **more}), lengths, GPU).steps()

    assert steps(all_long(100)) == 39  # 50 micro-batches, 13 steps an epoch
    assert steps(all_long(10), max_samples=10) == 6
    assert steps(all_long(200), max_samples=100) == 75  # of each of two data sets
    assert steps(all_long(80), val_size=20) == 30  # the 20 are not among those that are counted
    assert steps(all_long(100), max_steps=7) == 7
    assert steps(all_long(97, 256), packing=True) == 21  # 50 rows of 512 are 97 % full


def test_steps_of_stages_that_sample_count_completions_as_their_trainers_do(seven_b: str) -> None:
    def steps(prompts: int, **more: object) -> int | None:
        base = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "num_train_epochs": 2}
        return Forecaster(config(seven_b, **{**base, **more}), all_long(prompts), GPU).steps()

    sampled = {"stage": "grpo", "reward_functions": "length", "num_generations": 4}
    assert steps(25, **sampled) == 24  # 8 completions of 2 prompts a step; the last prompt of a pass is left out
    assert steps(25, **sampled, num_iterations=3) == 72
    ppo = {"stage": "ppo", "reward_model_type": "function", "reward_functions": "length"}
    for phases in ({}, {"ppo_buffer_size": 2, "ppo_epochs": 3}):
        plan = Plan(8, phases.get("ppo_buffer_size", 1), phases.get("ppo_epochs", 4), 0)
        assert steps(25, **ppo, **phases) == 2 * plan.loader_length(25) // 8


def test_gradient_checkpointing_is_on_where_a_step_would_not_fit_without_it(seven_b: str) -> None:
    long = config(seven_b, cutoff_len=4096, per_device_train_batch_size=4)
    open_, off, on = (
        check_fit(one, all_long(tokens=4096), (GPU,))
        for one in (long, long.replace(gradient_checkpointing=False), long.replace(gradient_checkpointing=True))
    )
    assert open_.memory == on.memory
    assert open_.checkpointing
    assert open_.fits
    assert not off.fits
    assert off.changes[0].changes == {"gradient_checkpointing": True}
    assert off.changes[0].memory == on.memory.total if on.memory else False


def test_each_change_makes_the_run_fit_and_is_a_config_that_the_rules_accept(seven_b: str) -> None:
    tight = config(seven_b, cutoff_len=8192, per_device_train_batch_size=8, lora_rank=64)
    found = check_fit(tight, all_long(tokens=8192), (GPU,))
    assert not found.fits
    room = found.rooms[0]
    assert room.usable == pytest.approx(0.9 * room.free, abs=1)  # a tenth is kept free
    assert f"usable ({room.free / 1e9:.1f} GB free) on {room.device}: it does not fit" in found.text()
    assert found.changes[0].changes == {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 16} or (
        found.changes[0].changes["per_device_train_batch_size"]
        * found.changes[0].changes["gradient_accumulation_steps"]
        == 8 * tight.training.gradient_accumulation_steps
    )
    for change in found.changes:
        again = check_fit(tight.replace(**change.changes), all_long(tokens=8192), (GPU,))
        assert again.fits, change
        assert again.memory is not None
        assert again.memory.total == change.memory


def test_where_no_change_alone_is_enough_several_are_combined_in_their_order(seven_b: str) -> None:
    small = Device("cuda", "NVIDIA A10", 8 << 30, 8 << 30, bf16=True)
    wish = config(seven_b, cutoff_len=4096, per_device_train_batch_size=8, lora_rank=256, lora_alpha=512)
    found = check_fit(wish, all_long(tokens=4096), (small,))
    (change,) = found.changes
    assert change.label.startswith("Halve the micro-batch, ")
    assert change.changes["per_device_train_batch_size"] == 1
    assert change.changes["quantization_bit"] == 4
    assert check_fit(wish.replace(**change.changes), all_long(tokens=4096), (small,)).fits


def test_where_nothing_makes_it_fit_the_text_says_so(seven_b: str) -> None:
    tiny = Device("cuda", "NVIDIA T4", 1 << 30, 1 << 30, bf16=False)
    found = check_fit(config(seven_b), all_long(), (tiny,))
    assert found.changes == ()
    assert "No change of the settings makes it fit" in found.text()
    assert found.precision == "float16, which this GPU computes in"


def test_the_name_alone_gives_a_typical_decoder_and_says_so() -> None:
    found = check_fit(config("someone/Unknown-7B-chat", bf16=True), all_long(), (GPU,))
    assert found.memory is not None
    assert found.memory.weights == pytest.approx(14e9, rel=0.02)
    assert not found.exact
    assert "typical decoder of 7 billion parameters" in found.text()
    nothing = check_fit(config("someone/unknown"), all_long(), (GPU,))
    assert nothing.memory is None
    assert nothing.fits is None
    assert "Memory  unknown" in nothing.text()
    assert nothing.json()["memory"] is None


def test_a_config_json_with_absurd_sizes_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SEVEN_B, "hidden_size": 10**12}))
    with pytest.raises(ModelSizeError, match=r"`hidden_size` in the model's config.json is 1000000000000\. Expected"):
        check_fit(config(str(tmp_path)), all_long(), (GPU,))


def test_a_70_b_config_without_torch(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_key_value_heads": 8}
    (tmp_path / "config.json").write_text(json.dumps({**SEVEN_B, **sizes, "num_attention_heads": 64}))
    (tmp_path / "run.yaml").write_text(f"model_name_or_path: {tmp_path}\ndataset: llf_demo\n")
    program = (
        "import sys, llf_core.cli.application as cli\n"
        "try: cli.main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    command = [sys.executable, "-c", program, "estimate", str(tmp_path / "run.yaml"), "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(ran.stdout)
    assert told["memory"]["weights"] == 2 * 68_976_648_192 or told["memory"]["weights"] == 4 * 68_976_648_192
    assert told["time"]["steps"] > 0
    assert told["disk"]["needed"] > 0
    imported = set(ran.stderr.split())
    assert imported & {"numpy", "llf_core.data.text_lengths"} == {"numpy", "llf_core.data.text_lengths"}
    assert imported & HEAVY == set()

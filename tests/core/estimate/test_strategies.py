"""What each strategy takes of a process and what it sends, worked out by hand; and cards that nobody here has."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llf_core.config import ConfigError, RunConfig
from llf_core.config.sections import STRATEGIES
from llf_core.data.text_lengths import estimate
from llf_core.estimate import Device, Forecaster, check_fit
from llf_core.estimate.devices import card_of, cards, cards_of_place
from llf_core.estimate.example_lengths import full_length
from llf_core.estimate.memory_forecast import Forecast
from llf_core.estimate.strategies import Link, Shares, traffic

SEVEN_B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "vocab_size": 32000, "tie_word_embeddings": False,
}  # fmt: skip
PARAMETERS = 6_738_415_616
OUTER = 2 * 32000 * 4096 + 4096
LAYER = (PARAMETERS - OUTER) // 32
GPU = Device("cuda", "NVIDIA H100 80GB HBM3", 80 << 30, 79 << 30, bf16=True, count=8)
CPU = Device("cpu", "a CPU", 64 << 30, 60 << 30)


@pytest.fixture
def seven_b(tmp_path: Path) -> dict[str, object]:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SEVEN_B))
    return {
        "model_name_or_path": str(folder), "dataset": "llf_demo", "cutoff_len": 512, "max_steps": 10,
        "finetuning_type": "full", "pure_bf16": True,
        "per_device_train_batch_size": 1, "gradient_accumulation_steps": 4,
    }  # fmt: skip


def parts(config: RunConfig, shares: Shares) -> Forecast:
    step = Forecaster(config, full_length(config), GPU).step
    assert step is not None
    return replace(step, shares=shares).memory(checkpointing=True)


def test_each_strategy_divides_its_parts(seven_b: dict[str, object]) -> None:
    config = RunConfig.load(seven_b)
    whole = parts(config, Shares())
    assert (whole.weights, whole.gradients, whole.optimizer) == (2 * PARAMETERS, 2 * PARAMETERS, 4 * PARAMETERS)
    parts_of = ("weights", "gradients", "optimizer", "activations", "head")
    for name, divisor in {"ddp": 1, "fsdp2": 8, "zero2": 8, "hsdp": 4}.items():
        shared = parts(config, Shares(name, 8, 2))
        assert [getattr(whole, part) / getattr(shared, part) for part in parts_of] == [divisor] * 3 + [1, 1]


def test_what_a_process_holds_for_the_others(seven_b: dict[str, object]) -> None:
    config = RunConfig.load(seven_b)
    sent = OUTER + max(OUTER, LAYER)  # gradients outside the layers, and the copy that is sent
    values = {"ddp": PARAMETERS, "fsdp2": OUTER + 2 * LAYER + sent, "zero2": PARAMETERS + LAYER + sent}
    held = {name: parts(config, Shares(name, 8)).communication for name in values}
    assert held == {name: pytest.approx(2 * count, abs=64) for name, count in values.items()}
    lora = RunConfig.load({**seven_b, "finetuning_type": "lora", "pure_bf16": False, "bf16": True})
    adapters = parts(lora, Shares()).gradients
    found = parts(lora, Shares("fsdp2", 8)).communication
    assert found == pytest.approx(2 * (OUTER + 2 * LAYER) + adapters / 32, rel=0.02)  # the base has no gradients


def test_scales_of_4_bit_weights_are_not_divided(seven_b: dict[str, object]) -> None:
    qlora = {**seven_b, "finetuning_type": "lora", "pure_bf16": False, "bf16": True, "quantization_bit": 4}
    found = Forecaster(
        RunConfig.load(qlora | {"num_processes": 8, "strategy": "fsdp2"}), full_length(RunConfig.load(qlora)), GPU
    )
    shared = found.uncorrected_memory(checkpointing=True)
    assert shared is not None
    inside = PARAMETERS - OUTER
    assert shared.weights == pytest.approx((2 * OUTER + 0.5 * inside) / 8 + 0.02 * inside, abs=64)
    gathered = 2 * OUTER + 2 * 0.52 * LAYER
    assert shared.communication - 0.02 * 2 * shared.gradients == pytest.approx(gathered, rel=0.02)


def test_bytes_and_seconds_of_a_step() -> None:
    link = Link(bandwidth=100.0, network=40.0, machine=4, hop=0.0, tree_hop=0.0)
    found = {name: traffic(Shares(name, 4), link, (1000, 800), 9, 3) for name in STRATEGIES}
    # 3/4 of 2 x 800, of 3 x (2 x 1000 + 800), of 3 x (1000 + 800)
    sent = {"ddp": 1200, "fsdp2": 6300, "zero2": 4050, "hsdp": 6300}
    assert {name: one.sent for name, one in found.items()} == sent
    assert {name: one.seconds for name, one in found.items()} == pytest.approx(
        {name: one / 100 for name, one in sent.items()}
    )
    two = traffic(Shares("hsdp", 4, 2), link, (1000, 800), 9, 3)
    assert two.sent == 4200 + 1200  # 1/2 of 3 x 2800 within, 1/2 of 3 x 2 x 400 between
    assert two.seconds == pytest.approx(4200 / 100 + 1200 / 20, rel=1e-4)  # two processes send through 40
    machines = traffic(Shares("fsdp2", 8), link, (1000, 800), 9, 3)
    assert machines.seconds == pytest.approx(3 * 2800 * 7 / 8 / 40, rel=1e-4)
    assert traffic(Shares("fsdp2", 1), link, (1000, 800), 9, 3).sent == 0
    assert found["fsdp2"].exposed(1000.0) == pytest.approx(6.3)  # one of ten blocks
    assert found["fsdp2"].exposed(50.0) == pytest.approx(13.0)
    assert found["ddp"].exposed(3.0) == pytest.approx(12.0)  # a single bucket comes last


def test_hops_take_longer_the_more_processes_there_are() -> None:
    link = Link(bandwidth=1e12, network=1e12, machine=8, hop=1e-6, tree_hop=5e-7)
    size = ((0, 1), 9, 1)  # 10 blocks, each with 3 calls
    assert traffic(Shares("fsdp2", 8), link, *size).seconds == pytest.approx(3 * 10 * 7e-6)
    ring = 14 * 1e-6 + 9.6e-6
    assert traffic(Shares("fsdp2", 16), link, *size).seconds == pytest.approx(3 * 10 * ring)
    assert traffic(Shares("ddp", 16), link, *size).seconds == pytest.approx(2 * (7 * 5e-7 + 8.5e-6))


def test_processes_on_a_cpu_share_its_memory_and_those_on_gpus_do_not(seven_b: dict[str, object]) -> None:
    two = RunConfig.load({**seven_b, "num_processes": 2, "max_steps": -1, "num_train_epochs": 1})
    for device, together in ((CPU, 2), (GPU, 1)):
        found = check_fit(two, devices=(device,))
        assert found.memory is not None
        assert found.rooms[0].needed == together * found.memory.total
        assert [one.strategy for one in found.strategies][:2] == ["ddp", "fsdp2"]
    assert "in each of 2 processes;" in found.text()


def test_the_first_process_holds_the_whole_model_before_it_is_sharded(seven_b: dict[str, object]) -> None:
    found = check_fit(RunConfig.load({**seven_b, "num_processes": 8, "strategy": "fsdp2"}), devices=(GPU,))
    assert found.memory is not None
    assert found.memory.weights == PARAMETERS * 2 // 8
    small = replace(GPU, total=13 << 30, free=13 << 30)
    held = check_fit(RunConfig.load({**seven_b, "num_processes": 64, "strategy": "fsdp2"}), devices=(small,))
    assert held.memory is not None
    assert held.loading is not None
    assert held.loading.total == 2 * PARAMETERS > held.rooms[0].usable
    assert held.rooms[0].needed == held.peak == held.memory.total < held.rooms[0].usable
    assert "the first process holds all of it in the memory of the CPU: 13.5 GB" in held.text()
    each = {**seven_b, "num_processes": 64, "strategy": "fsdp2", "adapter_name_or_path": "a"}
    whole = check_fit(RunConfig.load(each | {"finetuning_type": "lora", "pure_bf16": False}), devices=(small,))
    assert whole.loading is not None
    assert "each process holds all of it: " in whole.text()
    assert whole.rooms[0].needed == whole.loading.total
    assert whole.fits is False


def test_on_a_cpu_the_first_process_alone_keeps_what_it_has_loaded(seven_b: dict[str, object]) -> None:
    found = check_fit(RunConfig.load({**seven_b, "num_processes": 2, "strategy": "fsdp2"}), devices=(CPU,))
    assert found.memory is not None
    assert found.rooms[0].needed == 2 * found.memory.total - PARAMETERS


def test_several_processes_make_fewer_steps_of_more_tokens(seven_b: dict[str, object]) -> None:
    keys = {**seven_b, "max_steps": -1, "num_train_epochs": 1}
    one, eight = (estimate({**keys, "num_processes": 1}, on).duration for on in ("H100", "8 x H100"))
    assert one is not None
    assert eight is not None
    assert (one.steps, eight.steps) == (49, 7)  # 195 examples, 4 of a process in a step
    assert eight.computed == one.computed
    assert eight.sent == pytest.approx(2 * 2 * PARAMETERS * 7 / 8)
    assert eight.tokens_per_second == pytest.approx(8 * one.tokens_per_second * one.step_seconds / eight.step_seconds)


@pytest.mark.parametrize(
    ("text", "name", "count", "mib"),
    [
        ("8 x H100 80GB", "H100 80GB", 8, 81559), ("h100", "H100 80GB", 1, 81559), ("16 A100", "A100 80GB", 16, 81920),
        ("2x NVIDIA A100-40GB", "A100 40GB", 2, 40960), ("4090", "RTX 4090 24GB", 1, 24564),
        ("4 * H100 PCIe", "H100 PCIe 80GB", 4, 81559),
    ],
)  # fmt: skip
def test_cards_by_their_names(text: str, name: str, count: int, mib: int) -> None:
    found = cards_of_place(text)
    assert (found.name, found.count, found.total) == (name, count, mib << 20)


@pytest.mark.parametrize("text", ["8 x Z9", "8 x A100 20GB", "0 x H100", "5000 H100", "", "8"])
def test_a_text_that_names_no_card_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="Expected"):
        cards_of_place(text)


def test_a_found_card_has_the_figures_of_its_name_and_memory() -> None:
    found = {
        name: card_of(Device("cuda", name, mib << 20, 0))
        for name, mib in (("NVIDIA A100-SXM4-40GB", 40960), ("NVIDIA A100-SXM4-80GB", 81920), ("NVIDIA L40S", 46068),
                          ("NVIDIA RTX A4000", 16376))
    }  # fmt: skip
    assert [one and (one.name, one.size) for one in found.values()] == [("A100", 40), ("A100", 80), ("L40S", 48), None]
    assert len({(one.name, one.size) for one in cards()}) == len(cards())

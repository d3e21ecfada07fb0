"""A few real steps of each stage on the device, beside the same steps on the CPU in float32."""

from __future__ import annotations

import math

import pytest

from llf_core.config import RunConfig
from llf_core.models import load_model, load_tokenizer, plan_device, resolve_model
from llf_core.runs import RunReader, create_run, read_status
from llf_core.training.session import run_attempt
from llf_core.user_functions.function_source import write_code
from tests.core.stages.ppo.conftest import reward_adapter
from tests.gpu.conftest import losses, resolved

__all__ = ["reward_adapter"]

# What is learned from, what is asked for, and how far the first loss may be from that of float32 on the CPU, as a
# share of it: half precision rounds each number by up to 2^-9, and weights of 8 and 4 bits are quantized by other
# code on each device.
STAGES = {
    "sft": ("answers", {}, 0.01),
    "sft-packed": ("answers", {"packing": True}, 0.01),
    "sft-padded": ("answers", {"fast_path": False}, 0.01),
    "sft-full": ("answers", {"finetuning_type": "full"}, 0.01),
    "sft-checkpointed": ("answers", {"gradient_checkpointing": True}, 0.01),
    "qlora-nf4": ("answers", {"quantization_bit": 4}, 0.02),
    "qlora-int8": ("answers", {"quantization_bit": 8}, 0.03),
    "dpo": ("pairs", {"stage": "dpo"}, 0.01),
    "kto": ("judged", {"stage": "kto"}, 0.01),
    "rm": ("pairs", {"stage": "rm"}, 0.03),
}


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_makes_the_steps_of_the_cpu(name, trained, rows, device, precise):
    kind, asked, tolerance = STAGES[name]
    same = {"dataset": rows(kind), "max_steps": 3, **asked}
    folder, code = trained(**same)
    assert code == 0, read_status(folder).reason
    assert resolved(folder)["device"] == device.type
    found = losses(folder)
    assert len(found) == 3
    assert all(map(math.isfinite, found))
    assert max(losses(folder, "grad_norm")) > 0
    precise("float32")
    on_cpu, code = trained(**same, use_cpu=True)
    assert code == 0, read_status(on_cpu).reason
    assert found[0] == pytest.approx(losses(on_cpu)[0], rel=tolerance)
    assert (folder.output / "README.md").is_file()


@pytest.mark.parametrize("bits", [4, 8])
def test_quantized_weights_are_on_the_device_and_answer(bits, settings, device):
    from llf_core.generation import generate

    config = RunConfig.load(settings | {"quantization_bit": bits})
    source = resolve_model(config.model.model_name_or_path, config)
    model = load_model(source, config, plan_device(config))
    assert {parameter.device.type for parameter in model.parameters()} == {device.type}
    kinds = {type(module).__name__ for module in model.modules()}
    assert ("Linear4bit" if bits == 4 else "Linear8bitLt") in kinds
    answers = generate(model, load_tokenizer(source, config), ["one two", "What is it?"], max_new_tokens=4)
    assert len(answers) == 2


SHARE = "def share(answer):\n    return answer.count('a') / max(len(answer), 1)\n"


@pytest.mark.parametrize("method", ["lora", "full"])
def test_grpo_draws_answers_and_learns_from_them(method, settings, device):
    config = RunConfig.load(
        settings
        | {
            "stage": "grpo", "finetuning_type": method, "reward_functions": "share", "num_generations": 4,
            "max_completion_length": 6, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1,
            "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_steps": 3,
        }
    )  # fmt: skip
    folder = create_run(config.yaml(defaults=True), "tiny", fill=lambda new: write_code(new.code, {"share": SHARE}))
    assert run_attempt(folder, 1) == 0, read_status(folder).reason
    assert resolved(folder)["device"] == device.type
    found = RunReader(folder).metrics()
    assert len(found.values("loss")) == 3
    assert all(map(math.isfinite, found.values("loss")))
    assert all(0 <= reward <= 1 for reward in found.values("reward"))


def test_ppo_has_one_base_for_policy_reference_and_reward_model(trained, rows, reward_adapter, device):
    folder, code = trained(
        stage="ppo", dataset=rows("prompts"), reward_model_type="lora", reward_model=str(reward_adapter), ppo_epochs=2,
        max_steps=4, max_new_tokens=6, temperature=1.0, top_k=0, top_p=1.0,
    )  # fmt: skip
    assert code == 0, read_status(folder).reason
    assert resolved(folder)["device"] == device.type
    found = RunReader(folder).metrics()
    for name in ("loss", "reward", "policy_loss", "value_loss", "kl"):
        assert len(found.values(name)), name
        assert all(map(math.isfinite, found.values(name))), name
    assert found.values("kl")[0] == pytest.approx(0, abs=0.05)  # nothing has been learned yet

"""Configs of DeepSpeed, FSDP, accelerate and LLaMA-Factory's second configuration, read as keys of LLF.

`llama_factory_examples.json` holds the keys and values of all its examples that name one of them.
"""

import json
from pathlib import Path

import pytest
import yaml

from llf_core.config import RunConfig, validate
from llf_core.config.read_config import dump_yaml

BASE = {"dataset": "llf_demo", "num_processes": 2}
LISTED = json.loads(Path(__file__).with_name("llama_factory_examples.json").read_text())
ZERO = {
    "train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto", "zero_allow_untested_optimizer": True, "bf16": {"enabled": "auto"},
    "fp16": {"enabled": "auto", "loss_scale": 0, "initial_scale_power": 16},
}  # fmt: skip
OFFLOAD = {"offload_optimizer": {"device": "cpu", "pin_memory": True}, "offload_param": {"device": "cpu"}}
FSDP1 = {
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP", "fsdp_backward_prefetch": "BACKWARD_PRE",
    "fsdp_offload_params": False, "fsdp_sharding_strategy": "FULL_SHARD", "fsdp_use_orig_params": True,
}  # fmt: skip
ACCELERATE = {
    "compute_environment": "LOCAL_MACHINE", "distributed_type": "FSDP", "downcast_bf16": "no", "machine_rank": 0,
    "main_training_function": "main", "mixed_precision": "bf16", "num_machines": 1, "num_processes": 2,
    "rdzv_backend": "static", "tpu_env": [], "use_cpu": False, "fsdp_config": FSDP1,
}  # fmt: skip
NODES = {"num_machines": 2, "num_processes": 16, "main_process_ip": "192.168.0.1", "main_process_port": 29500}
NOT_BUILT = {
    "extras/fp8/": "FP8 training needs an NVIDIA GPU",
    "ktransformers/": "not supported yet (KTransformers)",
    "megatron": "not supported yet (Megatron; the nearest is `strategy: fsdp2`)",
    "train_full/mossvl": "the chat template of MOSS-VL",
    "v1/train_full/train_full_qwen3_moe_fsdpturbo": "fsdpturbo is not built. Expected fsdp2 or deepspeed",
    "v1/train_full/train_full_ulysses_cp": "`cp_size` is 2, which is not supported yet (context parallelism",
    "v1/train_lora/export_lora": "No data set is set",
    "v1/train_lora/train_lora_dpo": "has split: 'train_prefs', which is not read",
}
"""What the examples that do not validate are refused with; all others validate."""


@pytest.fixture
def files(tmp_path):
    """A folder with the files that examples name, by the paths that they name them by."""
    (tmp_path / "examples/deepspeed").mkdir(parents=True)
    fp8 = ZERO | {"zero_optimization": {"stage": 3} | OFFLOAD, "steps_per_print": 10000000, "comms_config": {}}
    (tmp_path / "examples/deepspeed/ds_z3_fp8_config.json").write_text(json.dumps(fp8))
    (tmp_path / "data").mkdir()
    identity = {"identity": {"path": "data/identity.json", "source": "local", "converter": "alpaca", "size": 500}}
    (tmp_path / "data/identity.json").write_text("[]")
    (tmp_path / "data/v1_sft_demo.yaml").write_text(yaml.dump(identity))
    (tmp_path / "data/v1_multimodal_demo.yaml").write_text(yaml.dump(identity))
    pairs = {"pairs": {"path": "owner/pairs", "split": "train_prefs", "converter": "pair"}}
    (tmp_path / "data/v1_dpo_demo.yaml").write_text(yaml.dump(pairs))
    return tmp_path


@pytest.mark.parametrize("name", LISTED["examples"])
def test_every_example_validates_or_says_what_is_not_built(name, files):
    values = LISTED["examples"][name]
    if not name.endswith("export_lora"):
        values = LISTED["common_v1" if name.startswith("v1/") else "common"] | values
    folder = files / "examples" / Path(name).parent
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "example.yaml"
    path.write_text(dump_yaml(values))
    errors = [one.message for one in validate(path).problems if one.severity == "error"]
    expected = next((said for begins, said in NOT_BUILT.items() if name.startswith(begins)), None)
    if expected is None:
        assert errors == []
    else:
        assert any(expected in one for one in errors), errors


@pytest.mark.parametrize(
    ("content", "read", "said"),
    [
        ({"zero_optimization": {"stage": 0}}, {"strategy": "ddp"}, "nothing is sharded"),
        ({"zero_optimization": {"stage": 1}}, {"strategy": "zero2"}, "gradients and weights too"),
        (
            {"zero_optimization": {"stage": 2, "overlap_comm": False}},
            {"strategy": "zero2"},
            "the weights between",
        ),
        ({"zero_optimization": {"stage": 3, "sub_group_size": 1e9}}, {"strategy": "fsdp2"}, "as ZeRO-3 does"),
        ({"zero_optimization": {"stage": 3} | OFFLOAD}, {"strategy": "fsdp2"}, "offloads to memory or disk"),
        (
            {"train_micro_batch_size_per_gpu": 3, "gradient_clipping": 0.5, "bf16": {"enabled": True}},
            {"per_device_train_batch_size": 3, "max_grad_norm": 0.5, "bf16": True},
            "ZeRO-0",
        ),
    ],
)
def test_a_config_of_deepspeed_is_read(tmp_path, content, read, said):
    (tmp_path / "ds.json").write_text(json.dumps(ZERO | content))
    for given in ("ds.json", ZERO | content):
        report = validate(BASE | {"deepspeed": given}, base=tmp_path)
        assert {key: report.config.get(key) for key in read} == read
        assert any(said in one.message for one in report.problems)
        assert not [one for one in report.problems if one.severity == "error"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"zero_optimization": {"stage": 4}}, "Expected a mapping with stage: 0, 1, 2 or 3."),
        ({"tensor_parallel": {"autotp_size": 2}}, "tensor parallelism is not built"),
        ({"optimizer": {"type": "AdamW"}}, "`optimizer` in `deepspeed` is not built"),
        ({"zero_optimization": {"stage": 3, "zero_quantized_weights": True}}, "`zero_optimization.zero_quantized_w"),
        ({"train_batch_size": 8}, "Set `per_device_train_batch_size`"),
        ({"gradient_accumulation_steps": 4}, "`gradient_accumulation_steps` is 2. Expected one of them."),
    ],
)
def test_what_a_config_of_deepspeed_cannot_say_is_refused(content, said):
    asked = BASE | {"deepspeed": ZERO | content, "gradient_accumulation_steps": 2}
    (problem,) = (one for one in validate(asked).problems if one.severity == "error")
    assert said in problem.message


@pytest.mark.parametrize(
    ("given", "strategy"), [("examples/deepspeed/ds_z3_offload_config.json", "fsdp2"), ("ds_z0_config.json", "ddp")]
)
def test_files_of_llama_factory_are_known_by_name_where_they_are_missing(tmp_path, given, strategy):
    report = validate(BASE | {"deepspeed": given}, base=tmp_path)
    assert report.config.launch.strategy == strategy
    assert {one.kind for one in report.problems if one.key == "deepspeed"} == {"not_needed"}
    (problem,) = (one for one in validate(BASE | {"deepspeed": "mine.json"}).problems if one.severity == "error")
    assert "there is no such file" in problem.message


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ({}, {"strategy": "fsdp2", "num_processes": 2, "bf16": True}),
        ({"fsdp_config": FSDP1 | {"fsdp_sharding_strategy": "NO_SHARD"}}, {"strategy": "ddp"}),
        (
            {
                "fsdp_config": {
                    "fsdp_version": 2,
                    "fsdp_reshard_after_forward": True,
                    "fsdp_activation_checkpointing": True,
                }
            },
            {"strategy": "fsdp2", "gradient_checkpointing": True},
        ),
        (NODES, {"num_processes": 8, "num_nodes": 2, "launch": "torchrun", "launch_target": "192.168.0.1:29500"}),
        ({"fsdp_config": {"fsdp_version": 2, "fsdp_reshard_after_forward": False}}, {"strategy": "zero2"}),
        ({"distributed_type": "DEEPSPEED", "deepspeed_config": {"zero_stage": 3}}, {"strategy": "fsdp2"}),
        ({"distributed_type": "MULTI_GPU"}, {"strategy": "ddp", "num_processes": 2}),
        ({"distributed_type": "MEGATRON_LM"}, None),
        ({"num_machines": 2, "num_processes": 3}, None),
    ],
)
def test_a_config_of_accelerate_is_read(tmp_path, content, read):
    (tmp_path / "fsdp.yaml").write_text(yaml.dump(ACCELERATE | content))
    report = validate({"dataset": "llf_demo", "fsdp_config": "fsdp.yaml"}, base=tmp_path)
    if read is None:
        assert [one.key for one in report.problems if one.severity == "error"] == ["fsdp_config"]
    else:
        assert {key: report.config.get(key) for key in read} == read
        assert not [one for one in report.problems if one.severity == "error"]


def test_a_changed_strategy_takes_the_place_of_the_files(tmp_path):
    report = validate(BASE | {"deepspeed": "ds_z3_config.json", "quantization_bit": 8}, base=tmp_path)
    (problem,) = (one for one in report.problems if one.severity == "error")
    fix = problem.fixes[0]
    config = RunConfig.load(BASE | {"deepspeed": "ds_z3_config.json"}, ["strategy=ddp"])
    assert (dict(fix.changes), config.launch.strategy) == ({"strategy": "ddp"}, "ddp")


def test_the_second_configuration_is_read_with_its_own_defaults(files):
    asked = {
        "model": "smollm2-135m-instruct", "train_dataset": "data/v1_sft_demo.yaml", "micro_batch_size": 2,
        "global_batch_size": 16, "num_processes": 2, "dist_config": {"name": "fsdp2", "dcp_path": None},
        "batching_strategy": "dynamic_padding_free", "flash_attn": "flash_attention_2",
        "peft_config": {"name": "lora", "r": 4, "target_modules": "all"},
    }  # fmt: skip
    config = RunConfig.load(asked, base=files)
    expected = {
        "model_name_or_path": "smollm2-135m-instruct", "dataset": (str(files / "data/identity.json"),),
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "strategy": "fsdp2", "packing": True,
        "finetuning_type": "lora", "lora_rank": 4, "lora_alpha": 16, "lora_dropout": 0.05, "learning_rate": 1e-4,
        "lr_scheduler_type": "constant", "bf16": True, "flash_attn": "fa2",
    }  # fmt: skip
    assert {key: config.get(key) for key in expected} == expected
    full = RunConfig.load({"model": "x", "train_dataset": "llf_demo", "learning_rate": 1e-5})
    assert (full.method.finetuning_type, full.get("learning_rate"), full.data.dataset) == ("full", 1e-5, ("llf_demo",))
    changed = RunConfig.load(asked, ["lora_rank=8", "strategy=ddp"], base=files)
    assert (changed.get("lora_rank"), changed.launch.strategy) == (8, "ddp")


ODD = (None, True, 0, -1, 2.5, "x", "", [], [1], {}, {"name": []}, {"name": "fsdp2"}, {"distributed_type": []})
KEYS = (
    "deepspeed", "fsdp", "fsdp_config", "dist_config", "peft_config", "quant_config", "kernel_config", "optim_config",
    "train_dataset", "eval_dataset", "global_batch_size", "batching_strategy", "flash_attn", "strategy",
)  # fmt: skip


@pytest.mark.parametrize("key", KEYS)
def test_odd_values_are_problems_and_never_exceptions(tmp_path, key):
    (tmp_path / "own.yaml").write_text(
        "distributed_type: DEEPSPEED\ndeepspeed_config: {deepspeed_config_file: own.yaml}"
    )
    for value in (*ODD, "own.yaml"):
        validate({"dataset": "llf_demo", key: value}, base=tmp_path)
        for outer in ("zero_optimization", "tensor_parallel", "fp16", "offload_optimizer", "num_machines", "path"):
            validate({"dataset": "llf_demo", key: {"name": "lora", outer: value}}, base=tmp_path)
        for outer in ("fsdp_config", "deepspeed_config", "num_processes", "main_process_ip", "mixed_precision"):
            content = {"distributed_type": "FSDP" if outer[0] == "f" else "DEEPSPEED", outer: value}
            validate({"dataset": "llf_demo", key: content}, base=tmp_path)

"""`llama_factory.json` holds the keys and defaults of LLaMA-Factory 0.9.5, read from its source."""

import json
import re
from pathlib import Path

import pytest

from llf_core.config import RunConfig, validate
from llf_core.config.classify_key import known
from llf_core.config.declarations.methods.lora import LoRAOptions
from llf_core.config.field_specs import field, fields

HERE = Path(__file__).parent
LLAMA_FACTORY = json.loads((HERE / "llama_factory.json").read_text())
REQUIRED = "__required__"
BASE = {"dataset": "llf_demo"}

# Our defaults that are not LLaMA-Factory's, each with the reason.
OTHER_DEFAULTS = {
    "audio_sampling_rate": "the model's own rate, which is 16,000 Hz for most and not for all",
    "use_reentrant_gc": "the newer form gives the same gradients, and needs none at the inputs of frozen layers",
    "model_name_or_path": "a config without a model trains the embedded one; there it is an error",
}

VALUES = {
    "stage": ["pt", "sft", "rm", "ppo", "dpo", "kto"],
    "finetuning_type": ["lora", "oft", "freeze", "full"],
    "quantization_method": ["bnb", "gptq", "awq", "aqlm", "quanto", "eetq", "hqq", "mxfp4", "fp8"],
    "quantization_bit": [1, 2, 3, 4, 5, 6, 8],
    "quantization_type": ["nf4", "fp4"],
    "quantization_device_map": ["auto"],
    "flash_attn": ["auto", "disabled", "sdpa", "fa2", "fa3"],
    "rope_scaling": ["linear", "dynamic", "yarn", "llama3"],
    "mixture_of_depths": ["convert", "load"],
    "mix_strategy": ["concat", "interleave_under", "interleave_over", "interleave_once"],
    "pref_loss": ["sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo"],
    "reward_model_type": ["lora", "full", "api"],
    "galore_proj_type": ["std", "reverse_std", "right", "left", "full"],
    "apollo_proj": ["svd", "random"],
    "apollo_proj_type": ["std", "right", "left"],
    "apollo_scale_type": ["channel", "tensor"],
    "badam_mode": ["layer", "ratio"],
    "badam_switch_mode": ["ascending", "descending", "random", "fixed"],
    "badam_mask_mode": ["adjacent", "scatter"],
    "swanlab_mode": ["cloud", "local"],
    "init_special_tokens": ["noise_init", "desc_init", "desc_init_w_noise"],
    "infer_backend": ["huggingface", "vllm", "sglang"],
    "infer_dtype": ["auto", "float16", "bfloat16", "float32"],
    "export_device": ["cpu", "auto"],
    "fp8_backend": ["auto", "torchao", "te", "msamp"],
    "tool_format": ["default", "gemma4", "glm4", "glm4_moe", "lfm2", "ling", "llama3", "minimax1", "minimax2"],
    "lang": ["en", "zh"],
}

# fmt: off
TEMPLATES = [
    "alpaca", "bailing", "bailing_v2", "breeze", "chatglm3", "chatml", "chatml_de", "cohere", "cpm4", "dbrx",
    "deepseek", "deepseek3", "deepseekr1", "hy3", "deepseekcoder", "default", "dots_ocr", "empty", "ernie",
    "ernie_nothink", "ernie_vl", "exaone", "falcon", "falcon_h1", "fewshot", "gemma", "gemma2", "gemma3", "gemma3n",
    "gemma4", "gemma4n", "glm4", "glm4_moe", "glm4v", "glm4_5v", "glm_ocr", "glm4_7", "glmz1", "gpt_oss",
    "granite3", "granite3_vision", "granite4", "index", "hunyuan", "hunyuan_small", "hy_dense_1_8b", "hy_dense_7b",
    "intern2", "intern_vl", "intern_s1", "keye_vl", "kimi_vl", "lfm2", "lfm2_vl", "llama2", "llama2_zh", "llama3",
    "llama4", "mllama", "moonlight", "moss_vl", "llava", "llava_next", "llava_next_llama3", "llava_next_mistral",
    "llava_next_qwen", "llava_next_yi", "llava_next_video", "llava_next_video_mistral", "llava_next_video_yi",
    "mimo", "mimo_v2", "mimo_vl", "minicpm_v", "minicpm_v_4_6", "minicpm_o", "minimax1", "minimax2", "ministral",
    "mistral", "mistral_small", "ministral3", "olmo", "openchat", "openchat-3.6", "opencoder", "paligemma",
    "paligemma_chat", "phi", "phi_small", "phi4", "phi4_mini", "pixtral", "qwen", "qwen3", "qwen3_nothink",
    "qwen2_audio", "qwen2_omni", "qwen3_omni", "qwen3_omni_nothink", "qwen2_vl", "qwen3_vl", "qwen3_vl_nothink",
    "qwen3_5", "qwen3_5_nothink", "qwen3_6", "sailor", "seed_coder", "seed_oss", "smollm", "smollm2", "solar",
    "starchat", "telechat2", "vicuna", "video_llava", "xuanyuan", "yi", "yi_vl", "youtu", "youtu_vl", "yuan",
    "zephyr", "aeva",
]
# fmt: on


def test_every_key_of_llama_factory_is_known():
    ours = {spec.key for spec in fields()}
    assert set(LLAMA_FACTORY) - ours - known().keys == set()


def test_no_key_is_classified_twice():
    listed = known()
    groups = [listed.features, listed.not_needed, listed.replaced, listed.translated, listed.secrets]
    assert sum(len(group) for group in groups) == len(listed.keys)
    assert {spec.key for spec in fields()} & listed.keys == set()


def test_values_that_are_not_built_belong_to_keys_and_are_no_choices():
    for key, values in known().values.items():
        spec = field(key)
        assert spec is not None or key in known().features
        assert spec is None or not set(values) & set(spec.choices or ())


def test_translated_keys_lead_to_options():
    assert [new for new in known().translated.values() if field(new) is None] == []


@pytest.mark.parametrize("key", sorted(LLAMA_FACTORY))
def test_a_key_at_llama_factorys_default_is_never_an_error(key):
    default = LLAMA_FACTORY[key]
    if default == REQUIRED or key in OTHER_DEFAULTS or key == "dataset":
        default = field(key).default if field(key) and key != "dataset" else "llf_demo" if key == "dataset" else None
    assert [p for p in validate(BASE | {key: default}).problems if p.key == key and p.severity == "error"] == []


def test_defaults_are_llama_factorys():
    differing = {
        key
        for key, default in LLAMA_FACTORY.items()
        if field(key) is not None and default != REQUIRED and field(key).default != default
    }
    assert differing == set(OTHER_DEFAULTS)


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in VALUES.items() for value in values])
def test_every_value_of_llama_factory_is_built_or_named_as_not_built(key, value):
    report = validate(BASE | {key: value, "template": "chatml"})
    about = [problem for problem in report.problems if problem.key == key and problem.severity == "error"]
    built = field(key) is not None and (field(key).choices is None or value in field(key).choices)
    accepted = key in known().replaced or key in known().not_needed
    harmless = accepted or (key in known().defaults and value in known().defaults[key])
    if built or harmless:
        assert [problem for problem in about if problem.kind != "violation"] == []
    else:
        assert [problem.kind for problem in about] == ["not_built"]


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_is_built_or_named_as_not_built(name):
    report = validate(BASE | {"template": name})
    assert [problem.kind for problem in report.problems] == ([] if name in field("template").choices else ["not_built"])


EXAMPLE = """
### model
model_name_or_path: meta-llama/Meta-Llama-3-8B-Instruct
trust_remote_code: true

### method
stage: sft
do_train: true
finetuning_type: lora
lora_rank: 8
lora_target: all

### dataset
dataset: identity,alpaca_en_demo
template: llama3
cutoff_len: 2048
max_samples: 1000
overwrite_cache: true
preprocessing_num_workers: 16
dataloader_num_workers: 4

### output
output_dir: saves/llama3-8b/lora/sft
logging_steps: 10
save_steps: 500
plot_loss: true
overwrite_output_dir: true
save_only_model: false
report_to: none  # choices: [none, wandb, tensorboard, swanlab, mlflow]

### train
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 3.0
lr_scheduler_type: cosine
warmup_ratio: 0.1
bf16: true
ddp_timeout: 180000000
resume_from_checkpoint: null

### eval
val_size: 0.1
per_device_eval_batch_size: 1
eval_strategy: steps
eval_steps: 500
"""


def test_an_example_of_llama_factory_loads_unchanged(tmp_path):
    path = tmp_path / "llama3_lora_sft.yaml"
    path.write_text(EXAMPLE)
    config = RunConfig.load(path)
    assert config.model.model_name_or_path == "meta-llama/Meta-Llama-3-8B-Instruct"
    assert config.data.dataset == ("identity", "alpaca_en_demo")
    assert config.optimizer.learning_rate == 1e-4
    assert config.optimizer.warmup_steps == 0.1
    assert config.training.output_dir == str(tmp_path / "saves/llama3-8b/lora/sft")
    assert config.options(LoRAOptions).lora_target == ("all",)
    assert {problem.severity for problem in validate(path).problems} == {"note"}


def test_messages_keep_to_the_words():
    report = validate(
        {"use_galore": True, "stage": "ppo", "seed": "x", "foo": 1, "val_size": 0.1, "eval_dataset": "a", "fp16": 1}
    )
    for problem in report.problems:
        assert problem.message.endswith((".", "`"))
        assert not re.search(r"\bplease\b|\binvalid\b|!", problem.message, re.IGNORECASE)

"""For each rule a config that has the combination; every fix on offer takes the message away."""

import pytest

from llf_core.config import RunConfig, validate
from llf_core.config.field_specs import field
from llf_core.config.rules import RULES, all_rules
from llf_core.config.rules.evaluation import saves_are_evaluated, set_names
from llf_core.config.rules.optimization import TYPICAL_VALUE_RULES

BASE = {"dataset": "llf_demo"}
EVALUATED = {"val_size": 0.1, "eval_strategy": "steps", "eval_steps": 50}
TWO = {"dataset": "llf_demo,other"}
DRAWN = {"stage": "grpo", "reward_functions": "format", "per_device_train_batch_size": 8, "top_p": 1, "top_k": 0}
SHARDED = {"strategy": "fsdp2", "num_processes": 2}
TURNS = TWO | {"mix_strategy": "interleave_under"}

# key, severity, what is asked, and what of the message matters
CASES = [
    ("packing", "note", {"stage": "pt", "packing": False}, "is split into several"),
    ("num_processes", "error", {"num_processes": 2, "stage": "dpo", "pref_loss": "aot"}, "only its share of them"),
    (
        "num_processes",
        "error",
        {"num_processes": 2, "stage": "grpo", "reward_functions": "length", "loss_type": "bnpo"},
        "a mean over the tokens of a batch",
    ),
    ("num_processes", "error", {"num_processes": 2, "use_badam": True, "finetuning_type": "full"}, "does not train in"),
    ("num_nodes", "error", {"num_nodes": 2}, "but `launch: local` starts one machine"),
    ("strategy", "note", {"strategy": "fsdp2"}, "no effect in one process"),
    ("strategy", "note", SHARDED | {"strategy": "hsdp"}, "On one machine `hsdp` is the same as `fsdp2`"),
    ("launch", "note", {"launch": "slurm"}, "is for this machine, not for the one where the run will run"),
    ("strategy", "error", SHARDED | {"stage": "kd", "teacher_model": "t"}, "Stage kd does not train with"),
    ("strategy", "error", SHARDED | {"use_asft_loss": True}, "The reference model of `use_asft_loss`"),
    ("strategy", "error", SHARDED | {"finetuning_type": "oft"}, "`finetuning_type: oft` does not train with"),
    ("strategy", "error", SHARDED | {"quantization_bit": 8}, "quantizes to 8 bits. Expected 4 bits of bitsandbytes"),
    ("strategy", "error", SHARDED | {"lora_init": "pissa"}, "trains plain LoRA so far"),
    ("strategy", "error", SHARDED | {"optim": "muon"}, "updates whole matrices"),
    ("strategy", "error", SHARDED | {"fp16": True}, "does not scale losses for float16"),
    ("strategy", "error", SHARDED | EVALUATED | {"load_best_model_at_end": True}, "cannot load its best checkpoint"),
    ("strategy", "error", SHARDED | {"fp8": True, "bf16": True}, "does not train in FP8"),
    ("strategy", "error", SHARDED | {"measure_forgetting": True}, "is not measured so far"),
    ("sync_to", "error", {"sync_to": "s3://AKIA:secret/x@bucket/runs"}, "has credentials or options in its address"),
    ("sync_to", "error", {"sync_to": "s3://bucket/runs?key=AKIA"}, "has credentials or options in its address"),
    ("sync_to", "error", {"sync_to": "ftp://box/runs"}, "nothing copies to ftp://"),
    ("sync_to", "error", {"sync_to": "hf://me/repo"}, "Expected hf://buckets/owner/name/folder"),
    ("sync_to", "error", {"sync_to": "s3://"}, "names no bucket, or no folder of a host"),
    ("sync_to", "error", {"sync_to": "ssh://box"}, "names no bucket, or no folder of a host"),
    ("metrics", "error", {"metrics": ["bleu", "a b"]}, "`metrics` has 'a b'"),
    ("metrics", "warning", {"metrics": "belu,my_own"}, "Did you mean bleu?"),
    ("do_predict", "error", {"do_predict": True}, "has nothing to answer: there is no evaluation data"),
    ("do_predict", "error", EVALUATED | {"do_predict": True, "num_beams": 4}, "predictions have no beam search"),
    ("dataset", "error", {"dataset": None}, "No data set is set."),
    ("peft_type", "warning", {"finetuning_type": "peft", "peft_type": "LILY"}, "depends on the other examples"),
    ("train_from_scratch", "error", {"train_from_scratch": True}, "Training starts with random weights"),
    (
        "train_from_scratch",
        "error",
        {"train_from_scratch": True, "adapter_name_or_path": "a", "finetuning_type": "full", "learning_rate": 1e-5},
        "replaces by random ones",
    ),
    (
        "adapter_name_or_path",
        "error",
        {"finetuning_type": "full", "adapter_name_or_path": "a", "learning_rate": 1e-5},
        "trains the model's own weights",
    ),
    (
        "adapter_name_or_path",
        "error",
        {"adapter_name_or_path": "a", "create_new_adapter": True, "quantization_bit": 4},
        "only one adapter can be given",
    ),
    ("create_new_adapter", "note", {"create_new_adapter": True}, "which is not set"),
    ("finetuning_type", "error", {"lora_target": ""}, "`lora_target` names no module for the adapter"),
    ("finetuning_type", "error", {"finetuning_type": "ia3", "ia3_target": []}, "`ia3_target` names no module"),
    ("optim_args", "note", {"optim_args": "a=1"}, "the optimizer adamw_torch_fused has no options"),
    ("warmup_steps", "note", {"warmup_steps": 0.1, "lr_scheduler_type": "constant"}, "constant has no warmup"),
    (
        "warmup_steps",
        "note",
        EVALUATED | {"warmup_steps": 3, "lr_scheduler_type": "reduce_lr_on_plateau"},
        "the schedule reduce_lr_on_plateau has no warmup",
    ),
    ("eval_steps", "note", {"eval_steps": 5}, "`eval_steps` has no effect without `eval_strategy: steps`"),
    ("save_steps", "note", {"save_steps": 5, "save_strategy": "epoch"}, "no effect without `save_strategy: steps`"),
    ("hub_model_id", "note", {"hub_model_id": "a/b"}, "no effect without `push_to_hub: true`"),
    ("hub_private_repo", "note", {"hub_private_repo": True}, "no effect without `push_to_hub: true`"),
    ("hub_revision", "note", {"hub_revision": "x"}, "no effect without `push_to_hub: true`"),
    ("adapter_folder", "note", {"adapter_folder": "checkpoint-9"}, "it has no effect"),
    ("hub", "error", {"hub": "modelscope", "trust_remote_code": True}, "Python code of a model is downloaded"),
    (
        "hub",
        "error",
        {"hub": "modelscope", "adapter_name_or_path": "a", "adapter_folder": "checkpoint-9"},
        "Subfolders are downloaded",
    ),
    ("split_special_tokens", "error", {"split_special_tokens": True, "stage": "grpo"}, "TRL tokenizes the prompts"),
    (
        "add_special_tokens",
        "error",
        {"add_special_tokens": "<fish>", "new_special_tokens_config": "tokens.yaml"},
        "names the special tokens itself",
    ),
    ("add_tokens", "error", {"add_tokens": ["<fish>", " "]}, "is ' ', which is empty or white space"),
    ("init_special_tokens", "error", {"init_special_tokens": "desc_init"}, "which is not set"),
    ("finetuning_type", "error", {"add_tokens": "<fish>", "finetuning_type": "oft"}, "does not train the embeddings"),
    (
        "gradient_checkpointing",
        "error",
        {"finetuning_type": "prefix", "gradient_checkpointing": True},
        "trains keys and values",
    ),
    ("packing", "error", {"finetuning_type": "prompt", "packing": True}, "between those of a packed row"),
    (
        "adapter_name_or_path",
        "error",
        {"finetuning_type": "prompt", "adapter_name_or_path": "a", "create_new_adapter": True},
        "are in the result only where it can be merged too",
    ),
    ("shift_attn", "error", {"finetuning_type": "prompt", "shift_attn": True}, "would count among its groups"),
    ("stage", "error", {"finetuning_type": "prompt", "stage": "dpo"}, "which stage dpo does not have"),
    (
        "additional_target",
        "error",
        {"finetuning_type": "prefix", "additional_target": "norm"},
        "trains no module whole",
    ),
    ("val_size", "error", {"val_size": 0.1, "eval_dataset": "identity"}, "`val_size` 0.1"),
    ("mask_history", "error", {"mask_history": True, "train_on_prompt": True}, "Expected one of them."),
    ("packing", "error", {"packing": True, "train_sampling_strategy": "group_by_length"}, "grouping by length"),
    ("packing", "error", {"packing": True, "stage": "dpo"}, "for sft and pt: stage dpo trains on whole pairs"),
    (
        "train_on_prompt",
        "error",
        {"train_on_prompt": True, "stage": "pt"},
        "is for stage sft only, and the stage is pt",
    ),
    ("mask_history", "note", {"mask_history": True, "stage": "dpo"}, "is for stage sft only, and the stage is dpo"),
    ("streaming", "error", {"streaming": True, "max_steps": 5, "stage": "kto"}, "compares several examples"),
    (
        "dpo_label_smoothing",
        "error",
        {"stage": "dpo", "pref_loss": "hinge", "dpo_label_smoothing": 0.1},
        "The loss hinge has no label smoothing",
    ),
    (
        "pref_loss",
        "error",
        {"stage": "dpo", "pref_loss": "exo_pair"},
        "the loss takes the logarithm of dpo_label_smoothing",
    ),
    (
        "ref_model",
        "error",
        {"stage": "dpo", "pref_loss": "orpo", "ref_model": "gpt2"},
        "The loss orpo uses no reference model",
    ),
    ("pref_bco_weight", "error", {"stage": "dpo", "pref_loss": "simpo", "pref_bco_weight": 1}, "simpo uses none"),
    (
        "label_smoothing_factor",
        "error",
        {"stage": "rm", "label_smoothing_factor": 0.1},
        "stage rm has no loss",
    ),
    ("watched_prompts", "error", {"stage": "rm", "watched_prompts": "Hello"}, "does not generate text"),
    ("per_device_train_batch_size", "warning", {"stage": "kto", "per_device_train_batch_size": 1}, "at least 2"),
    ("neftune_noise_alpha", "error", {"stage": "dpo", "neftune_noise_alpha": 5}, "would count as a difference"),
    (
        "ref_model_quantization_bit",
        "error",
        {"stage": "dpo", "ref_model_quantization_bit": 8, "ref_model_adapters": "a,b"},
        "2 adapters cannot be merged into a quantized reference model",
    ),
    (
        "ref_model_quantization_bit",
        "error",
        {"stage": "kto", "ref_model_quantization_bit": 8, "adapter_name_or_path": "a,b,c"},
        "3 adapters cannot be merged into a quantized reference model",
    ),
    (
        "precompute_ref_log_probs",
        "error",
        {"stage": "dpo", "precompute_ref_log_probs": True, "streaming": True, "max_steps": 5},
        "cannot be precomputed for a streamed data set",
    ),
    (
        "precompute_ref_log_probs",
        "note",
        {"stage": "dpo", "precompute_ref_log_probs": True, "pref_loss": "simpo"},
        "uses no reference model, so this has no effect",
    ),
    ("cutoff_strategy", "error", {"stage": "rm", "cutoff_strategy": "split"}, "Stage rm compares whole responses"),
    ("cutoff_strategy", "error", {"stage": "kto", "cutoff_strategy": "split"}, "Stage kto compares whole responses"),
    ("ld_alpha", "error", {"stage": "dpo", "pref_loss": "ipo", "ld_alpha": 0.5}, "averages over tokens"),
    (
        "per_device_train_batch_size",
        "warning",
        {"stage": "dpo", "pref_loss": "aot", "per_device_train_batch_size": 1},
        "aot compares the pairs of a micro-batch",
    ),
    ("discopop_tau", "warning", {"stage": "dpo", "pref_loss": "discopop"}, "With discopop_tau 0.05, as in its paper"),
    (
        "discopop_tau",
        "warning",
        {"stage": "dpo", "pref_loss": "discopop", "discopop_tau": 0.1},
        "With discopop_tau 0.1, the discopop loss first makes the chosen response less likely",
    ),
    (
        "kto_chosen_weight",
        "error",
        {"stage": "kto", "kto_chosen_weight": 0, "kto_rejected_weight": 0},
        "Both weights are 0",
    ),
    (
        "trust_remote_code",
        "warning",
        {"stage": "dpo", "trust_remote_code": True, "ref_model": "org/other"},
        "applies to ref_model too: Python code that comes with org/other",
    ),
    (
        "trust_remote_code",
        "warning",
        {"stage": "kd", "trust_remote_code": True, "teacher_model": "org/other"},
        "applies to teacher_model too",
    ),
    (
        "trust_remote_code",
        "warning",
        {"stage": "ppo", "trust_remote_code": True, "reward_model": "org/other", "reward_model_type": "full"},
        "applies to reward_model too",
    ),
    (
        "train_sampling_strategy",
        "error",
        DRAWN | {"train_sampling_strategy": "sequential"},
        "Stage grpo samples its prompts in random order",
    ),
    ("num_beams", "error", DRAWN | {"num_beams": 2}, "Stage grpo samples completions, which beam search does not"),
    ("do_sample", "error", DRAWN | {"do_sample": False}, "which are identical without sampling"),
    ("ref_model", "error", DRAWN | {"ref_model": "gpt2"}, "Stage grpo uses the initial model as its reference"),
    ("reward_functions", "error", {"stage": "grpo"}, "Stage grpo needs a reward function"),
    (
        "reward_functions",
        "error",
        DRAWN | {"reward_functions": "format,format"},
        "`reward_functions` is format,format. Expected each function once",
    ),
    ("reward_weights", "error", DRAWN | {"reward_weights": "1,2"}, "for each of the 1 reward functions"),
    ("reward_weights", "error", DRAWN | {"reward_weights": "much"}, "`reward_weights` is much"),
    ("reward_weights", "error", DRAWN | {"reward_weights": "inf"}, "`reward_weights` is inf"),
    ("reward_pattern", "error", DRAWN | {"reward_pattern": "(a"}, "missing ), unterminated subpattern"),
    ("reward_pattern", "error", DRAWN | {"reward_pattern": "a{99999999999}"}, "repetition number is too large"),
    (
        "num_generations",
        "error",
        DRAWN | {"num_generations": 6, "per_device_train_batch_size": 4},
        "A step has 4 completions (per_device_train_batch_size times gradient_accumulation_steps)",
    ),
    ("cutoff_strategy", "error", DRAWN | {"cutoff_strategy": "split"}, "cannot be split"),
    ("neftune_noise_alpha", "error", DRAWN | {"neftune_noise_alpha": 5}, "would change the sampled completions"),
    ("top_p", "warning", {"stage": "rloo", "reward_functions": "format"}, "top_p 0.7, top_k 50"),
    (
        "metric_for_best_model",
        "error",
        DRAWN | {"metric_for_best_model": "accuracy"},
        "do not compute. Expected loss, reward.",
    ),
    (
        "loss_type",
        "warning",
        DRAWN | {"loss_type": "luspo"},
        "Expected importance_sampling_level sequence.",
    ),
    ("val_size", "error", {"val_size": 50, "max_samples": 50}, "No training examples remain: `val_size` is 50"),
    ("eval_strategy", "error", {"eval_strategy": "epoch"}, "there is no evaluation data: `val_size` is 0."),
    ("eval_on_start", "error", {"eval_on_start": True}, "there is no evaluation data"),
    ("eval_strategy", "note", {"val_size": 0.1}, "evaluated once, at the end"),
    ("early_stopping_steps", "error", {"early_stopping_steps": 3}, "Early stopping watches the evaluation loss, but"),
    ("early_stopping_steps", "error", {"early_stopping_steps": 3, "val_size": 0.1}, "`eval_strategy` is no"),
    ("load_best_model_at_end", "error", {"load_best_model_at_end": True}, "there is no evaluation data"),
    ("load_best_model_at_end", "error", {"load_best_model_at_end": True, "val_size": 5}, "`eval_strategy` is no"),
    (
        "load_best_model_at_end",
        "error",
        EVALUATED | {"load_best_model_at_end": True, "save_strategy": "epoch"},
        "saved by `epoch` and evaluated by `steps`",
    ),
    (
        "save_steps",
        "error",
        EVALUATED | {"load_best_model_at_end": True, "save_steps": 120},
        "saved every 120 steps and evaluated every 50. Expected a multiple.",
    ),
    ("save_strategy", "error", {"save_strategy": "best"}, "needs to know which checkpoint is best"),
    ("metric_for_best_model", "error", {"metric_for_best_model": "accuracy"}, "do not compute. Expected loss."),
    ("greater_is_better", "error", {"greater_is_better": True}, "a lower loss is better"),
    ("compute_accuracy", "warning", {"compute_accuracy": True}, "has no effect: there is no evaluation data"),
    (
        "eval_on_each_dataset",
        "warning",
        DRAWN | EVALUATED | {"eval_on_each_dataset": True},
        "evaluates the completions to the prompts of all data sets together",
    ),
    ("lr_scheduler_type", "error", {"lr_scheduler_type": "reduce_lr_on_plateau"}, "`eval_strategy` is no"),
    (
        "lr_scheduler_type",
        "error",
        EVALUATED | {"lr_scheduler_type": "greedy", "learning_rate": 1e-5},
        "never goes below its `min_lr` of 1e-3",
    ),
    ("lr_scheduler_type", "error", {"lr_scheduler_type": "cosine_with_min_lr"}, "`min_lr`"),
    (
        "lr_scheduler_type",
        "error",
        {"lr_scheduler_type": "polynomial", "learning_rate": 1e-5, "lr_scheduler_kwargs": {"lr_end": 1e-5}},
        "ends at its `lr_end` of 1e-5, and the learning rate is 1e-5",
    ),
    (
        "lr_scheduler_type",
        "error",
        {"lr_scheduler_type": "polynomial", "learning_rate": 1e-7},
        "ends at its `lr_end` of 1e-7, and the learning rate is 1e-7",
    ),
    (
        "lr_scheduler_type",
        "error",
        {"lr_scheduler_type": "polynomial", "learning_rate": 0, "lr_scheduler_kwargs": {"lr_end": 0, "power": 2}},
        "ends at its `lr_end` of 0",
    ),
    (
        "lr_scheduler_type",
        "error",
        {"lr_scheduler_type": "cosine_with_min_lr", "learning_rate": 0, "lr_scheduler_kwargs": {"min_lr": 1e-6}},
        "divides its `min_lr` by the learning rate, which is 0",
    ),
    (
        "lr_scheduler_type",
        "error",
        {"lr_scheduler_type": "cosine_warmup_with_min_lr", "learning_rate": 0, "lr_scheduler_kwargs": {"min_lr": 0}},
        "divides its `min_lr`",
    ),
    ("learning_rate", "warning", {"learning_rate": 0}, "nothing is learned"),
    ("learning_rate", "warning", {"finetuning_type": "full", "learning_rate": 1e-3}, "1e-3"),
    ("warmup_steps", "warning", {"warmup_steps": 20, "max_steps": 10}, "20 of 10 steps"),
    ("max_steps", "note", {"max_steps": 10, "num_train_epochs": 2}, "after 10 steps"),
    ("fp16", "error", {"fp16": True, "bf16": True}, "Both fp16 and bf16"),
    ("bf16", "note", {"bf16": True, "pure_bf16": True}, "`bf16` has no effect"),
    ("fp16", "error", {"fp16": True, "use_cpu": True}, "needs a GPU"),
    (
        "dataset_columns",
        "error",
        {"dataset_columns": {"promt": "a"}, "dataset_format": "alpaca"},
        "cannot have the role promt.",
    ),
    ("dataset_columns", "error", {"dataset_columns": {"prompt": "a"}}, "and `dataset_format` is not"),
    ("rename_fields", "error", {"rename_fields": {"role": "a", "b": 1}}, "cannot rename role, b."),
    ("interleave_probs", "error", TWO | {"interleave_probs": "0.5,0.5"}, "does not use it"),
    (
        "interleave_probs",
        "error",
        TURNS | {"interleave_probs": "0.5,0.6"},
        "Expected numbers of at least 0 that sum to 1",
    ),
    ("interleave_probs", "error", TURNS | {"interleave_probs": "half,0.5"}, "`interleave_probs` is half,0.5"),
    ("interleave_probs", "error", TURNS | {"interleave_probs": "1.0"}, "2 data sets and 1 probabilities"),
    ("mix_strategy", "error", {"mix_strategy": "interleave_once"}, "nothing to interleave"),
    ("tool_format", "error", {"tool_format": "qwen"}, "needs a named `template`"),
    ("tf32", "error", {"tf32": True, "use_cpu": True}, "`use_cpu` is true"),
    (
        "quantization_bit",
        "error",
        {"quantization_bit": 4, "finetuning_type": "full", "learning_rate": 1e-5},
        "quantized to 4 bits cannot be trained",
    ),
    ("quantization_type", "note", {"quantization_bit": 8, "quantization_type": "fp4"}, "does not have it in 8 bits"),
    ("double_quantization", "note", {"double_quantization": False, "quantization_bit": 8}, "applies to 4 bits"),
    ("quantization_method", "note", {"quantization_method": "hqq"}, "no effect without `quantization_bit`"),
    ("quantization_method", "error", {"quantization_method": "gptq", "quantization_bit": 4}, "is for models whose"),
    ("quantization_bit", "error", {"quantization_bit": 3}, "which bitsandbytes does not have. Expected 4 or 8."),
    (
        "quantization_method",
        "error",
        {"quantization_method": "eetq", "quantization_bit": 8, "use_cpu": True},
        "EETQ needs an NVIDIA GPU, and `use_cpu` is true",
    ),
    (
        "quantization_method",
        "error",
        {"quantization_method": "quanto", "quantization_bit": 8},
        "needs optimum-quanto, which is not installed",
    ),
    (
        "quantization_method",
        "error",
        {"quantization_method": "hqq", "quantization_bit": 4, "finetuning_type": "ia3"},
        "PEFT's IA3 does not support layers quantized by HQQ",
    ),
    (
        "use_dora",
        "error",
        {"quantization_method": "quanto", "quantization_bit": 8, "use_dora": True},
        "PEFT cannot read from quanto",
    ),
    (
        "gradient_checkpointing",
        "error",
        {"gradient_checkpointing": True, "disable_gradient_checkpointing": True},
        "enables what `disable_gradient_checkpointing` disables",
    ),
    ("dataloader_prefetch_factor", "error", {"dataloader_prefetch_factor": 2}, "`dataloader_num_workers` is 0"),
    (
        "dataloader_persistent_workers",
        "error",
        {"dataloader_persistent_workers": True},
        "`dataloader_num_workers` is 0",
    ),
    ("accelerator_config", "error", {"accelerator_config": {"dispatch_batches": True}}, "`dispatch_batches`"),
    ("accelerator_config", "error", {"accelerator_config": {"x": 1}}, "no option `x`"),
    ("gradient_checkpointing_kwargs", "error", {"gradient_checkpointing_kwargs": {"x": 1}}, "no option `x`"),
    ("dataloader_multiprocessing_context", "error", {"dataloader_multiprocessing_context": "spawn"}, "is 0"),
    ("lr_scheduler_kwargs", "error", {"lr_scheduler_kwargs": {"x": 1}}, "no option `x`"),
    ("optim_args", "error", {"optim": "sgd", "optim_args": "x=1"}, "no option `x`"),
    ("watched_prompts", "error", {"watched_prompts": "x" * 5000}, "has 5,000 characters"),
    (
        "interleave_probs",
        "error",
        {"dataset": "llf_demo,llf_demo", "mix_strategy": "interleave_over", "interleave_probs": "0,1"},
        "takes too long",
    ),
    ("flash_attn", "error", {"flash_attn": "fa2", "use_cpu": True}, "needs an NVIDIA GPU"),
    ("packing", "error", {"packing": True, "fast_path": False}, "`fast_path` is false"),
    ("packing", "error", {"packing": True, "flash_attn": "disabled"}, "plain attention"),
    ("streaming", "error", {"streaming": True}, "epochs cannot be counted"),
    ("val_size", "error", {"streaming": True, "max_steps": 9, "val_size": 0.1}, "A share of a streamed data set"),
    ("image_min_pixels", "error", {"image_min_pixels": 600_000}, "600,000 is larger than `image_max_pixels` 589,824"),
    ("video_min_pixels", "error", {"video_max_pixels": 100}, "256 is larger than `video_max_pixels` 100"),
    ("freeze_language_model", "error", {"freeze_language_model": True}, "nothing would be trained"),
    ("drop_duplicates", "error", {"streaming": True, "max_steps": 9, "drop_duplicates": True}, "cannot be detected"),
    (
        "train_sampling_strategy",
        "error",
        {"streaming": True, "max_steps": 9, "train_sampling_strategy": "group_by_length"},
        "shuffled within the buffer",
    ),
    (
        "dataloader_num_workers",
        "note",
        {"streaming": True, "max_steps": 9, "dataloader_num_workers": 2},
        "data loader workers are not used",
    ),
    ("logging_strategy", "warning", {"logging_strategy": "no"}, "no charts"),
    ("save_strategy", "note", {"save_strategy": "no"}, "No checkpoint is saved"),
    ("ignore_data_skip", "note", {"ignore_data_skip": True}, "repeats some examples"),
    ("report_to", "error", {"report_to": "none,wandb"}, "The trackers are none,wandb."),
    ("torch_compile", "warning", {"torch_compile": True, "use_cpu": True}, "no C++ compiler"),
    ("report_to", "warning", {"report_to": "flyte"}, "flytekit is not installed, so the run would fail"),
    ("trust_remote_code", "note", {"trust_remote_code": True}, "runs with your permissions"),
    ("allow_pickle", "note", {"allow_pickle": True}, "pickle"),
]
IDS = [f"{key}-{number}" for number, (key, *_) in enumerate(CASES)]


@pytest.fixture(autouse=True)
def no_compiler(monkeypatch):
    """A machine without a C++ compiler, an NVIDIA GPU and quanto."""
    monkeypatch.setattr("llf_core.config.rules.process.has_compiler", lambda: False)
    monkeypatch.setattr("llf_core.config.quantizers.has_cuda", lambda: False)
    monkeypatch.setattr("llf_core.config.quantizers._is_installed", lambda module: module != "optimum.quanto")


def the_problem(asked, key, words):
    return [one for one in validate(asked).violations if one.key == key and words in one.message]


@pytest.mark.parametrize(("key", "severity", "asked", "words"), CASES, ids=IDS)
def test_a_combination_is_told_beside_its_field(key, severity, asked, words):
    (problem,) = the_problem(BASE | asked, key, words)
    assert problem.severity == severity
    assert problem.message[0].isupper() or problem.message.startswith(("`", "fp16 "))  # a sentence, or a key
    assert problem.message.count(". ") <= 1


@pytest.mark.parametrize(("key", "severity", "asked", "words"), CASES, ids=IDS)
def test_every_fix_mends_what_it_stands_beside_and_breaks_nothing(key, severity, asked, words):
    (problem,) = the_problem(BASE | asked, key, words)
    errors = {one.message for one in validate(BASE | asked).problems if one.severity == "error"}
    for fix in problem.fixes:
        assert {change for change in fix.changes if field(change) is None} == set()
        mended = BASE | asked | fix.changes
        mended = {key: value for key, value in mended.items() if value is not None or key not in fix.changes}
        assert the_problem(mended, key, words) == []
        after = [one for one in validate(mended).problems if one.severity == "error" and one.message not in errors]
        assert after == [], fix.label


def test_every_rule_has_a_case():
    # `test_typical_values.py` has the cases of these.
    seen = {number for number, rule in enumerate(RULES) if rule in TYPICAL_VALUE_RULES}
    for _, _, asked, _ in CASES:
        config = validate(BASE | asked).config
        seen |= {n for n, rule in enumerate(RULES) if n not in seen and rule.check(config) is not None}
    assert sorted(set(range(len(RULES))) - seen) == []


FULL = {"finetuning_type": "full", "learning_rate": 1e-5}
PAIRS = {"dataset": "llf_demo_pairs", "stage": "dpo"}


@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        ({"eaft_alpha": 2}, "use_eaft_loss: true"),
        ({"asft_alpha": 2}, "use_asft_loss: true"),
        (PAIRS | {"simpo_gamma": 1}, "pref_loss: simpo"),
        (PAIRS | {"discopop_tau": 0.3}, "pref_loss: discopop"),
        ({"pissa_iter": 4}, "lora_init: pissa"),
        ({"loraplus_lr_embedding": 1e-3}, "loraplus_lr_ratio"),
        (FULL | {"use_badam": True, "badam_mode": "ratio", "badam_switch_interval": 5}, "badam_mode: layer"),
        (FULL | {"use_badam": True, "badam_update_ratio": 0.1}, "badam_mode: ratio"),
    ],
)
def test_an_option_that_nothing_reads_is_told(asked, needed):
    key = next(reversed(asked))
    (problem,) = [one for one in validate(BASE | asked).problems if one.key == key]
    assert (problem.severity, problem.message) == ("note", f"`{key}` has no effect without `{needed}`.")
    name, _, value = needed.partition(": ")
    with_it = {name: {"true": True, "": 16}.get(value, value)}
    assert [one for one in validate(BASE | asked | with_it).problems if one.key == key] == []


def test_a_metric_without_a_name_is_none():
    (problem,) = validate(BASE | {"metric_for_best_model": ""}).violations
    assert problem.message.startswith("`metric_for_best_model` is empty, which the evaluations")


def test_every_rule_names_options():
    for rule in all_rules():
        assert [key for key in rule.fields if field(key) is None] == []


def test_a_plain_config_breaks_no_rule():
    assert validate(BASE).problems == ()
    assert validate(BASE | EVALUATED | {"load_best_model_at_end": True, "save_steps": 100}).problems == ()


def test_a_rule_about_a_value_that_is_wrong_by_itself_is_silent():
    assert validate(BASE | {"early_stopping_steps": 3, "val_size": "some"}).violations == []


def test_a_note_stops_nothing():
    assert RunConfig.load(BASE | {"val_size": 0.1}).data.val_size == 0.1


@pytest.mark.parametrize(
    ("larger", "smaller", "together"),
    [
        (100, 50, True),
        (50, 100, False),
        (120, 50, False),
        (0.2, 0.1, True),
        (0.3, 0.1, True),
        (0.25, 0.1, False),
        (100, 0.1, False),
    ],
)
def test_saves_fall_on_evaluations(larger, smaller, together):
    assert saves_are_evaluated(larger, smaller) is together


@pytest.mark.parametrize(("name", "there"), [("clang++", True), ("cl", True), ("gcc", False)])
def test_a_compiler_is_found_by_its_name(monkeypatch, tmp_path, name, there):
    monkeypatch.undo()
    monkeypatch.delenv("CXX", raising=False)
    (tmp_path / name).write_text("")
    (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    from llf_core.config.rules.process import has_compiler

    assert has_compiler() is there


def test_data_sets_have_different_names_in_metrics():
    names = ("data/x y.json", "x_y", "x_y_2", "data/held.jsonl", "one/a.csv", "two/a.csv")
    assert set_names(names) == ("x_y", "x_y_2", "x_y_2_2", "held", "one_a.csv", "two_a.csv")

"""A small Llama whose weights are the same wherever it is made, and the rows that two programs train it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOKENIZER = HERE.parents[1] / "data" / "llama_factory" / "tokenizers" / "bytes"
HIDDEN = 32


def save_model(folder: Path) -> None:
    """Writes the model and its tokenizer. NumPy's old generator gives the same numbers in every version."""
    import numpy as np
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(TOKENIZER)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048, tie_word_embeddings=False,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    numbers = np.random.RandomState(0)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            drawn = torch.from_numpy(numbers.standard_normal(tuple(parameter.shape))).float()
            parameter.copy_(1 + 0.1 * drawn if "norm" in name else 0.15 * drawn)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def head_weight() -> Any:
    """The weights of a reward model's head: `[1, hidden]`."""
    import numpy as np
    import torch

    return torch.from_numpy(np.random.RandomState(1).standard_normal((1, HIDDEN))).float() * 0.3


def settings(model: Path, **changes: Any) -> dict[str, Any]:
    """Keys that LLaMA-Factory and LLF both know, for five steps over the pairs in their order."""
    return {
        "model_name_or_path": str(model), "do_train": True, "dataset_dir": str(HERE), "dataset": "pairs",
        "template": "chatml", "cutoff_len": 1024, "disable_shuffling": True, "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2, "max_steps": 5, "learning_rate": 1e-3, "lr_scheduler_type": "constant",
        "logging_steps": 1, "save_strategy": "no", "use_cpu": True, "seed": 3,
    } | changes  # fmt: skip

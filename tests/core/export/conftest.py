"""A tiny Llama with two LoRAs whose effect is large, and a request to export it."""

import pytest

from llf_core.chat.target import find_target
from llf_core.export.request import ExportRequest, WeightedAdapter

SPREAD = 0.1


@pytest.fixture(scope="module")
def adapters(tiny_model_dir, tiny_tokenizer, tmp_path_factory):
    """Folders of two LoRAs of rank 4 on all linear layers of the tiny Llama."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tests.tiny import tiny_llama

    folders = []
    for seed in (1, 2):
        settings = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = get_peft_model(tiny_llama(tiny_tokenizer), settings)
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(weight, std=SPREAD)
        settings.base_model_name_or_path = str(tiny_model_dir)
        folders.append(tmp_path_factory.mktemp("adapters") / f"lora-{seed}")
        model.save_pretrained(folders[-1])
        tiny_tokenizer.save_pretrained(folders[-1])
    return folders


@pytest.fixture(scope="module")
def make_request(adapters):
    """`make_request(format, folder, **changes)`: a request to export the first LoRA."""

    def make(name, folder, **changes):
        target = find_target(adapters[0])
        own = (WeightedAdapter(str(adapters[0]), 1.0, "first"),)
        return ExportRequest(target, name, folder, **{"adapters": own} | changes)

    return make

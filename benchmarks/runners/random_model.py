"""Fills a folder that has a `config.json` with random weights in bfloat16: `FOLDER [DEVICE]`."""

import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM

if __name__ == "__main__":
    folder, device = (*sys.argv[1:], "cpu")[:2]
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(folder)
    with torch.device(device):  # billions of numbers take a CPU minutes
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="4GB")

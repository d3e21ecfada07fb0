"""Fills a folder that has a `config.json` with random weights in bfloat16: `FOLDER`."""

import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM

if __name__ == "__main__":
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(sys.argv[1])
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(sys.argv[1])

"""Has what comes after compute in float32: `MODEL_FOLDER COPY`, in LLF's own environment.

LLaMA-Factory goes by the precision that a model is stored in: it gets a copy. LLF takes what it once timed to be faster
where nothing is asked for: it finds that it timed float32.
"""

import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llf_core.launch.environment import usable_cpus
from llf_core.models import device

if __name__ == "__main__":
    folder, copy = sys.argv[1:]
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).save_pretrained(copy)
    AutoTokenizer.from_pretrained(folder).save_pretrained(copy)
    device.time_bf16 = lambda: 0.5
    device.bf16_speedup(usable_cpus())

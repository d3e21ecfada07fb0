"""Trains with a limit on this process's address space that the whole batch exceeds; prints what came of it.

A process of its own, since a limit that is met may hit anything else that runs in it.
"""

import gc
import json
import os
import resource
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[3]))
from tests.core.training.small_trainer import examples, make_trainer
from tests.tiny import tiny_llama, tiny_tokenizer

home = Path(os.environ["HOME_OF_TEST"])
tokenizer = tiny_tokenizer()
tiny_llama(tokenizer).save_pretrained(home / "model")


def made(folder):
    return make_trainer(
        home / "model", tokenizer, examples([1000] * 16), home / folder, batch=16, accumulation=1, epochs=1
    )  # fmt: skip


saved = {}


def weigh(tensor):
    saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return tensor


free, expected = made("free")
with torch.autograd.graph.saved_tensors_hooks(weigh, lambda tensor: tensor):
    batch = free.data_collator(list(free.train_dataset))
    free.compute_loss(free.model.train(), batch)
free.train()
limited, losses = made("limited")
told = []
limited.tell = lambda key, sentence: told.append(sentence)
del batch
gc.collect()
pages = int(Path("/proc/self/statm").read_text().split()[0])
graph = sum(saved.values())
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + graph // 2, resource.RLIM_INFINITY))
limited.train()
print(
    json.dumps(
        {
            "told": told,
            "parts": limited.train_parts.count,
            "free": expected.values,
            "limited": losses.values,
            "seen": limited.seen.tolist(),
            "graph": graph,
        }
    )
)

"""One of several processes that train together over gloo on flattened batches; prints what came of it.

First with all the memory there is, then with room for one document in the last process, then for none.
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
from llf_core.stages.base.loop import DoesNotFitError
from llf_core.stages.sft import SFT
from tests.core.training.cramped import cramped
from tests.core.training.small_trainer import examples, make_trainer
from tests.tiny import tiny_llama, tiny_tokenizer

rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
home = Path(os.environ["HOME_OF_TEST"]) / str(rank)
tokenizer = tiny_tokenizer()
tiny_llama(tokenizer).save_pretrained(home / "model")


def made(folder, **changes):
    return make_trainer(
        home / "model", tokenizer, examples(), home / folder,
        batch=2, accumulation=2, flat=True, ddp_backend="gloo", per_device_eval_batch_size=2, **changes,
    )  # fmt: skip


trainer, losses = made("plain")
trainer.train()
said = {"losses": losses.values, "eval_loss": trainer.evaluate()["eval_loss"], "seen": trainer.seen.tolist()}
last = rank == world - 1
trainer, losses = made("cramped", stage=cramped(1) if last else SFT)
told = []
trainer.tell = lambda key, sentence: told.append((key, sentence))
trainer.train()
said |= {"split": losses.values, "told": told, "parts": trainer.train_parts.count, "split_seen": trainer.seen.tolist()}
trainer, _ = made("too-small", stage=cramped(0) if last else SFT)
try:
    trainer.train()
except DoesNotFitError as error:
    said["error"] = str(error)
except RuntimeError as error:  # the other process is gone
    said["left"] = str(error)
print(json.dumps(said), flush=True)
os._exit(0 if last else 1)  # the process group is broken: nothing to take leave of

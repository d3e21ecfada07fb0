"""Makes `rm.json`: the loss of each step with which LLaMA-Factory 0.9.5 trains a reward model on `pairs.json`.

Also `rm_adapter/`, the adapter and value head that it saves after two steps of LoRA, and in `rm.json` the scores that
its own model gives to two texts then.

    python tests/core/stages/llama_factory/make_rm_goldens.py

Installs LLaMA-Factory into an environment of its own (see `benchmarks/peers.py`). Its value head has a bias and a
dropout of 0.1 while it trains. The bias takes no part in the loss, which sees only differences of two scores; the
dropout is set to 0 here, and the head's weights to those of `same_model.head_weight`, since it would draw them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
TEXTS = (
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi! What is it?<|im_end|>\n",
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n",
)


def inside() -> None:
    """Runs in LLaMA-Factory's environment."""
    sys.path.insert(0, str(HERE))
    import torch
    from llamafactory.train.rm import workflow
    from llamafactory.train.tuner import run_exp
    from same_model import head_weight, save_model, settings

    load_model = workflow.load_model
    models: list[Any] = []

    def with_known_head(*args: Any, **kwargs: Any) -> Any:
        model = load_model(*args, **kwargs)
        model.v_head.dropout.p = 0.0
        with torch.no_grad():
            model.v_head.summary.weight.copy_(head_weight())
            model.v_head.summary.bias.zero_()
        models.append(model)
        return model

    workflow.load_model = with_known_head
    with tempfile.TemporaryDirectory() as work:
        model, out = Path(work) / "model", Path(work) / "out"
        save_model(model)
        own = {"output_dir": str(out), "overwrite_cache": True, "report_to": "none", "save_strategy": "steps"}
        run_exp(settings(model, stage="rm", finetuning_type="lora", lora_rank=2, **own) | {"max_steps": 2})
        scored = scores(models[-1], model)
        keep_adapter(out)
        run_exp(settings(model, stage="rm", finetuning_type="full", **own))
        history = json.loads((out / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    norms = [entry["grad_norm"] for entry in history if "grad_norm" in entry]
    goldens = {"losses": losses, "grad_norms": norms, "scores": scored}
    (HERE / "rm.json").write_text(json.dumps(goldens, indent=1) + "\n")


def scores(model: Any, folder: Path) -> dict[str, float]:
    """What a trained model says of the last token of some texts."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    found = {}
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            found[text] = float(model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids))[2][0, -1])
    return found


def keep_adapter(out: Path) -> None:
    """Copies what a reward model is loaded from, without the paths of this machine."""
    target = HERE / "rm_adapter"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for name in ("adapter_model.safetensors", "value_head.safetensors"):
        shutil.copyfile(out / name, target / name)
    written = json.loads((out / "adapter_config.json").read_text())
    written["base_model_name_or_path"] = "the model of same_model.py"
    written["target_modules"].sort()
    (target / "adapter_config.json").write_text(json.dumps(written, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().inside:
        inside()
        return
    sys.path.insert(0, str(ROOT))
    from benchmarks.peers import FOLDER, peer_environment
    from benchmarks.processes import plain_environment

    peer_environment(FOLDER)
    command = [str(FOLDER / "bin" / "python"), __file__, "--inside"]
    subprocess.run(command, check=True, env=plain_environment())


if __name__ == "__main__":
    main()

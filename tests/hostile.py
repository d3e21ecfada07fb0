"""A run folder as a stranger would send it: whatever Python code it brings leaves a mark when it is run."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import yaml

from llf_core.runs import RunFolder, RunWriter, create_run, status

if TYPE_CHECKING:
    from pathlib import Path

MARK = "with open({mark!r}, 'a') as file:\n    file.write(__name__ + '\\n')\n"
MODULE = """
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


class EvilConfig(LlamaConfig):
    pass


class EvilModel(LlamaForCausalLM):
    config_class = EvilConfig


class EvilTokenizer(PreTrainedTokenizerFast):
    pass
"""
REWARD = "\n\ndef vowels(answer):\n    return float(answer.count('a'))\n"


def evil_model(folder: Path, base: Path, mark: Path) -> None:
    """A copy of a model whose config, model, tokenizer and generation come with Python code."""
    shutil.copytree(base, folder)
    (folder / "evil.py").write_text(MARK.format(mark=str(mark)) + MODULE)
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(
        MARK.format(mark=str(mark)) + "\n\ndef generate(model, **more):\n    return None\n"
    )
    _change(
        folder / "config.json",
        auto_map={"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.EvilModel"},
    )
    _change(folder / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "evil.EvilTokenizer"]})


def evil_run(base: Path, mark: Path, state: str = "finished", home: Path | None = None, **changes: Any) -> RunFolder:
    """A run on a model in its own folder, with results, checkpoint, numbers and reward functions.

    Args:
        base: a good model.
        mark: the file that its code writes to.
        state: of the run.
        home: `LLF_HOME` where it is not the environment's.
        changes: of its config.
    """

    def fill(new: RunFolder) -> None:
        evil_model(new.data / "model", base, mark)
        evil_model(new.output, base, mark)
        rows = [{"instruction": f"Say {i}.", "input": "", "output": f"It is {i}."} for i in range(12)]
        (new.data / "rows.json").write_text(json.dumps(rows))
        new.code.mkdir()
        (new.code / "vowels.py").write_text(MARK.format(mark=str(mark)) + REWARD)
        writer = RunWriter(new)
        writer.metric(2, {"loss": 2.0})
        writer.examples(2, [0, 1], [9.0, 12.5], [3, 5])
        checkpoint = new.checkpoints / "checkpoint-2"
        checkpoint.mkdir(parents=True)
        (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": 2, "max_steps": 4}))
        (checkpoint / "complete.json").write_text(
            json.dumps({"files": {"trainer_state.json": (checkpoint / "trainer_state.json").stat().st_size}})
        )

    config = {
        "model_name_or_path": "data/model",
        "trust_remote_code": True,
        "dataset": "./data/rows.json",
        "val_size": 4,
        "stage": "sft",
        "finetuning_type": "full",
        "max_steps": 4,
        "per_device_train_batch_size": 2,
    } | changes
    folder = create_run(yaml.safe_dump(config), "evil", home, fill)
    status.update(folder, state=state, step=2, total=4)
    return folder


def _change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))

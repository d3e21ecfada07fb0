"""Prepares a data set once and says how long it took: `-m benchmarks.runners.prepare WHO SETTINGS.json OUT.json`.

`WHO` is `llf` (this project's Python) or `llamafactory` (its own). Imports and the tokenizer come before the clock.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any


def llf(settings: dict[str, Any]) -> tuple[int, float]:
    """Examples and seconds of this project."""
    import datasets  # noqa: F401 - both import it, LLaMA-Factory sooner

    from llf_core.config import RunConfig
    from llf_core.data import prepare
    from llf_core.models import load_tokenizer, resolve_model

    config = RunConfig.load(settings)
    tokenizer = load_tokenizer(resolve_model(config.model.model_name_or_path, config), config)
    began = time.perf_counter()
    examples = prepare(config, tokenizer).report.examples
    return examples, time.perf_counter() - began


def llamafactory(settings: dict[str, Any]) -> tuple[int, float]:
    """The same of LLaMA-Factory."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments
    from transformers import AutoTokenizer, Seq2SeqTrainingArguments

    settings = dict(settings)
    path = settings.pop("model_name_or_path")
    model, data = ModelArguments(model_name_or_path=path), DataArguments(**settings)
    tokenizer = AutoTokenizer.from_pretrained(path)
    training = Seq2SeqTrainingArguments(output_dir="out", do_train=True, report_to=[], use_cpu=True)
    began = time.perf_counter()
    template = get_template_and_fix_tokenizer(tokenizer, data)
    found = get_dataset(template, model, data, training, stage="sft", tokenizer=tokenizer)["train_dataset"]
    return len(found), time.perf_counter() - began


if __name__ == "__main__":
    who, given, out = sys.argv[1:]
    count, seconds = {"llf": llf, "llamafactory": llamafactory}[who](json.loads(Path(given).read_text()))
    Path(out).write_text(json.dumps({"examples": count, "seconds": seconds}))

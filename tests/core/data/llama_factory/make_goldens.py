"""Makes `goldens.json`: what LLaMA-Factory makes of the rows in `rows/`, token by token.

    python tests/core/data/llama_factory/make_goldens.py

Installs LLaMA-Factory into an environment of its own (see `benchmarks/peers.py`), trains two small tokenizers on the
rows, has LLaMA-Factory encode every row by every template, and writes ids and labels beside this file. Where its demo
files lie in `../shared/data/llama_factory`, a hash of each of their examples goes to `demo.json`, by the tokenizer of
SmolLM2.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
DEMO = ROOT.parent / "shared" / "data" / "llama_factory"
SETS = ("alpaca", "talks")
DEMO_SETS = ("identity", "alpaca_en_demo", "glaive_toolcall_en_demo")
TEMPLATES = ("default", "alpaca", "vicuna", "chatml", "llama2", "llama3", "gemma", "phi", "qwen", "mistral")
SPECIAL = (
    "<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<|eom_id|>", "<start_of_turn>", "<end_of_turn>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|end|>",
)  # fmt: skip


def tokenizers(folder: Path) -> None:
    """Trains one tokenizer of bytes, as GPT-2's, and one that puts blanks before words, as Llama 2's."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [str(row) for name in SETS for row in json.loads((HERE / "rows" / f"{name}.json").read_text())] * 2
    bytewise = Tokenizer(models.BPE())
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    blanks = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    blanks.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    blanks.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_of_all = [f"<0x{byte:02X}>" for byte in range(256)]
    for name, tokenizer, kept in (("bytes", bytewise, alphabet), ("blanks", blanks, [])):
        special = [*SPECIAL, *(bytes_of_all if name == "blanks" else ())]
        trainer = trainers.BpeTrainer(
            vocab_size=700, special_tokens=special, initial_alphabet=kept, show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        wrapped = PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
        )
        wrapped.save_pretrained(folder / name)


def encoded(tokenizer_folder: Path, data_folder: Path, name: str, template: str) -> list[dict[str, Any]]:
    """What LLaMA-Factory makes of a data set; runs in its environment."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments, ModelArguments
    from transformers import AutoTokenizer, Seq2SeqTrainingArguments

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    data = DataArguments(
        template=template, dataset=name, dataset_dir=str(data_folder), cutoff_len=100_000, overwrite_cache=True,
        preprocessing_num_workers=1,
    )  # fmt: skip
    model = ModelArguments(model_name_or_path=str(tokenizer_folder))
    made = get_template_and_fix_tokenizer(tokenizer, data)
    with tempfile.TemporaryDirectory() as out:
        training = Seq2SeqTrainingArguments(output_dir=out, do_train=True, report_to=[], use_cpu=True)
        rows = get_dataset(made, model, data, training, stage="sft", tokenizer=tokenizer)["train_dataset"]
    return [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows]


def digest(example: dict[str, Any]) -> str:
    """Twelve hex digits of an example's ids and labels."""
    text = json.dumps([list(example["input_ids"]), list(example["labels"])])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def inside(tokenizer_folders: Path, smollm2: str) -> None:
    """Runs in LLaMA-Factory's environment, on the day that Llama's own template names: LLaMA-Factory writes today's."""
    from datetime import datetime

    from llamafactory.data import tool_utils

    class Day(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime(2024, 7, 26, tzinfo=tz)

    tool_utils.datetime = Day
    goldens = {
        kind: {
            template: {name: encoded(tokenizer_folders / kind, HERE / "rows", name, template) for name in SETS}
            for template in TEMPLATES
        }
        for kind in ("bytes", "blanks")
    }
    (HERE / "goldens.json").write_text(compact(goldens))
    if DEMO.is_dir() and smollm2:
        demo = {
            template: {name: list(map(digest, encoded(Path(smollm2), DEMO, name, template))) for name in DEMO_SETS}
            for template in TEMPLATES
        }
        (HERE / "demo.json").write_text(compact(demo))


def compact(value: Any) -> str:
    """JSON with one example a line."""

    def lines(inner: Any, depth: int) -> str:
        if isinstance(inner, dict) and "input_ids" not in inner:
            parts = [f"{' ' * depth}{json.dumps(key)}: {lines(one, depth + 1)}" for key, one in inner.items()]
            return "{\n" + ",\n".join(parts) + "\n" + " " * (depth - 1) + "}"
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            return "[\n" + ",\n".join(json.dumps(one, separators=(",", ":")) for one in inner) + "]"
        return json.dumps(inner, separators=(",", ":"))

    return lines(value, 1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", nargs=2, metavar=("TOKENIZERS", "SMOLLM2"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.inside:
        inside(Path(asked.inside[0]), asked.inside[1])
        return
    sys.path.insert(0, str(ROOT))
    from benchmarks.peers import FOLDER, peer_environment
    from benchmarks.processes import plain_environment
    from llf_core.models import resolve_model

    peer_environment(FOLDER)
    folder = HERE / "tokenizers"
    tokenizers(folder)
    smollm2 = str(resolve_model("smollm2-135m-instruct").path) if DEMO.is_dir() else ""
    command = [str(FOLDER / "bin" / "python"), __file__, "--inside", str(folder), smollm2]
    subprocess.run(command, check=True, env=plain_environment())


if __name__ == "__main__":
    main()

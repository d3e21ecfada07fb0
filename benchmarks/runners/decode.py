"""Greedy answers of batch 1 in float32: `llf|transformers MODEL_FOLDER PROMPTS.json NEW_TOKENS OUT.json`."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def answers_of(who: str, folder: str, new_tokens: int) -> Callable[[str], str]:
    """A function from a user message to an answer: LLF's own, or the same by `model.generate`."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if who == "llf":
        from llf_core.generation import generate, prepare_weights

        prepare_weights(model)  # as `load_base_and_tuned` does
        return lambda prompt: generate(model, tokenizer, [prompt], max_new_tokens=new_tokens)[0]

    @torch.no_grad()
    def answer(prompt: str) -> str:
        message = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        output = model.generate(**ids, max_new_tokens=new_tokens, do_sample=False)
        return str(tokenizer.decode(output[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)).strip()

    return answer


def main() -> None:
    who, folder, prompts, new_tokens, out = sys.argv[1:]
    answer = answers_of(who, folder, int(new_tokens))
    first, *measured = json.loads(Path(prompts).read_text())
    answer(first)
    texts, took = [], []
    for prompt in measured:
        start = time.perf_counter()
        texts.append(answer(prompt))
        took.append(time.perf_counter() - start)
    Path(out).write_text(json.dumps({"seconds": sum(took), "each": took, "texts": texts}))


if __name__ == "__main__":
    main()

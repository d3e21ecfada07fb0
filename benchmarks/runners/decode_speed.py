"""How fast answers are drawn: `llf|transformers FOLDER PROMPT_TOKENS NEW_TOKENS DEVICE OUT.json`.

Greedy, batch 1, the weights in the precision that they are stored in; what comes out is not looked at, since models of
random numbers say nothing.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TIMES = 3


def continuing(who: str, folder: str, new_tokens: int, device: str) -> Callable[[list[int]], int]:
    """A function from a prompt to how many tokens came after it."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").to(device).eval()
    if who == "llf":
        from llf_core.generation import prepare_weights
        from llf_core.generation.generate import continuations
        from llf_core.generation.sampling import Sampling

        tokenizer = AutoTokenizer.from_pretrained(folder)
        prepare_weights(model)

        def ours(ids: list[int]) -> int:
            (answer,) = continuations(model, tokenizer, [ids], sampling=Sampling(), max_new_tokens=new_tokens)
            return len(answer)

        return ours

    @torch.no_grad()
    def theirs(ids: list[int]) -> int:
        given = torch.tensor([ids], device=device)
        mask = torch.ones_like(given)
        output = model.generate(given, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False)
        return int(output.shape[1] - len(ids))

    return theirs


def main() -> None:
    who, folder, prompt, new_tokens, device, out = sys.argv[1:]
    continue_row = continuing(who, folder, int(new_tokens), device)
    draw = torch.Generator().manual_seed(0)
    prompts = [torch.randint(100, 40_000, (int(prompt),), generator=draw).tolist() for _ in range(TIMES + 1)]
    continue_row(prompts[0])
    steps = []
    for ids in prompts[1:]:
        start = time.perf_counter()
        count = continue_row(ids)
        steps.append([round(time.perf_counter() - start, 4), count])
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    Path(out).write_text(json.dumps({"steps": steps, "peak_cuda_bytes": peak}))


if __name__ == "__main__":
    main()

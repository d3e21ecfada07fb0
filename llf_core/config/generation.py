from __future__ import annotations

from llf_core.config.option import Lines, Section, option

LONGEST_PROMPT = 4000
"""Maximum characters of a watched prompt."""
LEAST_DIVISOR = 0.001
"""Minimum divisor of logits: the quotient stays finite in 16 bits."""


class Generation(Section):
    """Sampling of completions."""

    do_sample: bool = option(
        True,
        label="Sample",
        help="Samples tokens by their probability. Off: greedy decoding.",
        source="Hugging Face",
    )
    temperature: float = option(
        0.95,
        label="Temperature",
        help="Softmax temperature of sampling. Below 1, likely tokens are sampled more often; above 1, less often.",
        minimum=LEAST_DIVISOR,
        source="Hugging Face",
    )
    top_p: float = option(
        0.7,
        label="Top p",
        help="Nucleus sampling: samples from the most likely tokens whose probabilities sum to this.",
        above=0,
        maximum=1,
        source="Hugging Face",
    )
    top_k: int = option(
        50,
        label="Top k",
        help="Samples from this many of the most likely tokens. 0 samples from all.",
        minimum=0,
        source="Hugging Face",
    )
    num_beams: int = option(
        1,
        label="Beams",
        help="Number of beams of beam search. 1 switches it off.",
        minimum=1,
        source="Hugging Face",
    )
    max_length: int = option(
        1024,
        label="Maximum length",
        help="Maximum tokens of prompt and answer together. `max_new_tokens` overrides it.",
        unit="tokens",
        minimum=1,
        source="Hugging Face",
    )
    max_new_tokens: int = option(
        1024,
        label="Maximum new tokens",
        help="Answers are truncated after this many tokens.",
        unit="tokens",
        minimum=0,
        source="Hugging Face",
    )
    repetition_penalty: float = option(
        1.0,
        label="Repetition penalty",
        help="Above 1, tokens that already occurred become less likely.",
        minimum=LEAST_DIVISOR,
        source="Hugging Face",
    )
    length_penalty: float = option(
        1.0,
        label="Length penalty",
        help="With beam search, values above 0 favour longer answers, below 0 shorter ones.",
        source="Hugging Face",
    )
    skip_special_tokens: bool = option(
        True,
        label="Hide special tokens",
        help="Leaves special tokens out of the text.",
        source="Hugging Face",
    )
    watched_prompts: Lines | None = option(
        None,
        unset="none: write one prompt per line",
        label="Watched prompts",
        help=(
            "Prompts, one per line, that the base model answers at the start and the tuned model at every checkpoint "
            "and evaluation."
        ),
        lines=True,
        level="basic",
    )
    watched_tokens: int = option(
        64,
        label="Watched answer length",
        help="Answers to watched prompts are truncated after this many tokens.",
        unit="tokens",
        minimum=1,
    )

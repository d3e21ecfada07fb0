"""How answers are sampled."""

from __future__ import annotations

from llf_core.config.option import Lines, Section, option

LONGEST_PROMPT = 4000
"""Characters of a watched prompt."""
LEAST_DIVISOR = 0.001
"""Of logits: what they are divided by stays a number in 16 bits too."""


class Generation(Section):
    """How answers are sampled."""

    do_sample: bool = option(
        True,
        label="Sample",
        help="Draws tokens by their probability; off, always takes the likeliest.",
        source="Hugging Face",
    )
    temperature: float = option(
        0.95,
        label="Temperature",
        help="Below 1 likelier tokens are drawn more often, above 1 less often.",
        minimum=LEAST_DIVISOR,
        source="Hugging Face",
    )
    top_p: float = option(
        0.7,
        label="Top p",
        help="Draws from the likeliest tokens that hold this share of the probability.",
        above=0,
        maximum=1,
        source="Hugging Face",
    )
    top_k: int = option(
        50,
        label="Top k",
        help="Draws from this many of the likeliest tokens; 0 draws from all.",
        minimum=0,
        source="Hugging Face",
    )
    num_beams: int = option(
        1,
        label="Beams",
        help="How many continuations are searched side by side; 1 means no beam search.",
        minimum=1,
        source="Hugging Face",
    )
    max_length: int = option(
        1024,
        label="Longest text",
        help="Length of prompt and answer together; `max_new_tokens` comes first.",
        unit="tokens",
        minimum=1,
        source="Hugging Face",
    )
    max_new_tokens: int = option(
        1024,
        label="Longest answer",
        help="An answer is cut after this many tokens.",
        unit="tokens",
        minimum=0,
        source="Hugging Face",
    )
    repetition_penalty: float = option(
        1.0,
        label="Repetition penalty",
        help="Above 1 makes tokens that were already written less likely.",
        minimum=LEAST_DIVISOR,
        source="Hugging Face",
    )
    length_penalty: float = option(
        1.0,
        label="Length penalty",
        help="With beams, above 0 favours longer answers and below 0 shorter ones.",
        source="Hugging Face",
    )
    skip_special_tokens: bool = option(
        True,
        label="Hide special tokens",
        help="Leaves special tokens out of the text that is shown.",
        source="Hugging Face",
    )
    watched_prompts: Lines | None = option(
        None,
        unset="none: write one question a line",
        label="Watch it answer",
        help="Questions, one a line: answered by the base, and by the model at every checkpoint and evaluation.",
        lines=True,
        level="basic",
    )
    watched_tokens: int = option(
        64,
        label="Longest watched answer",
        help="An answer to a watched prompt is cut after this many tokens.",
        unit="tokens",
        minimum=1,
    )

"""Texts on which an exported model is compared with the live one, and a quantized file with its source."""

from __future__ import annotations

from typing import Any

TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}

PROMPTS = (
    "What is the capital of France?",
    "Write a function that adds two numbers.",
    "Translate to German: The ship is in the harbour.",
    "Name three colours, separated by commas.",
    "用一句话介绍你自己。",
    "If a train travels 60 km in 40 minutes, how fast is it?",
    "Once upon a time there was a small dog that",
    "List the steps to make tea, numbered 1 to 3.",
)

SCORED = ("Certainly. I explain it step by step, and name the sources.", "I do not know.")
"""Answers to each of `PROMPTS` that a reward model scores."""

CONVERSATIONS: tuple[dict[str, Any], ...] = (
    {"messages": [{"role": "user", "content": "Hello"}], "add_generation_prompt": True},
    {
        "messages": [
            {"role": "system", "content": "You answer briefly."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": "Hello! How can I help?"},
            {"role": "user", "content": "  Tell me\n\na joke: ä, 中, 🙂.  "},
        ],
        "add_generation_prompt": True,
    },
    {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
        "add_generation_prompt": False,
    },
    {
        "messages": [{"role": "user", "content": "Will it rain in Rome?"}],
        "tools": [TOOL],
        "add_generation_prompt": True,
    },
)
"""A chat template may refuse some of them."""

TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "  leading blanks,\ttabs\nand lines\r\n",
    "naïve café — 東京 — Привет — 🙂👍🏽",
    "def f(x):\n    return x ** 2  # 3.14159",
)
MAX_ANSWER_TOKENS = 24

MAX_POSITIONS = 40
"""Positions at the end of each probe at which logits are compared."""

QUESTIONS = (
    *PROMPTS,
    "Explain in two sentences why the sky is blue.",
    "Write a short poem about the sea.",
    "What is 17 plus 26?",
    "Give me a recipe for pancakes.",
    "Who wrote Romeo and Juliet?",
    "Correct the grammar: he go to school every days.",
    "Summarize: The meeting was moved from Monday to Wednesday because the room was taken.",
    "What is the difference between a list and a tuple in Python?",
    "Name the planets of the solar system.",
    "Write a polite e-mail that asks for a day off.",
    "Is a whale a fish?",
    "Convert 5 kilometres to metres.",
)
"""User messages whose greedy answers are compared."""

TEXT = """\
A lighthouse is a tower with a lamp at its top. It marks a dangerous coast or the way into a harbour, and it tells a
ship at night where it is. The oldest ones were fires on hills. Later the fires were put on platforms, so that they
could be seen from further away, and in the third century before our era the Greeks built one at Alexandria that was
about a hundred metres high and burned for many hundreds of years.

The light of an oil lamp does not reach far by itself. In 1822 the French engineer Augustin Fresnel found that a lens
can be made of separate rings of glass, each of which bends the light as much as a thick lens would at that place. His
lens was thin and light enough to be turned by clockwork, and its beam could be seen from more than thirty kilometres.
Each tower was given its own rhythm: two short flashes every ten seconds here, one long flash every five seconds there.
A sailor counts the seconds between the flashes, looks the rhythm up in a list, and knows which tower it is.

Keepers lived beside the lamp, often with their families. They carried oil up the stairs, trimmed the wicks, cleaned
the glass every morning, and wrote the weather into a book. Electric light and radio made their work simpler, and in
the end a switch that reacts to darkness replaced them. Today most ships find their way by satellites, but satellites
can fail, and a light that anyone can see needs no battery on board. Many towers are therefore still lit each evening,
and some of the houses of their keepers have become small museums.
"""
"""Text whose perplexity is measured, written for this purpose, so that no older model was trained on it."""

BEGINNING = "Hello"
"""Text whose tokens show what a tokenizer puts before and after a text."""

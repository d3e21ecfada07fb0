"""Texts on which an exported model is compared with the live one."""

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

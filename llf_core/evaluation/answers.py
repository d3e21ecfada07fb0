"""Completions of the same prompts by the base model and the tuned model.

`python -m llf_core.evaluation.answers RUN_ID PROMPT …` prints them as JSON.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from llf_core.chat.predictions import OF_ONE_RECORD, by_length
from llf_core.chat.request import ChatRequest, ChatSampling, CollectedReply, Failed
from llf_core.evaluation import worker_process
from llf_core.evaluation.errors import EvaluationError
from llf_core.runs import RunReader, RunWriter, open_run
from llf_core.runs.config_file import run_config

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from pathlib import Path

    from llf_core.chat.engine import Engine
    from llf_core.chat.request import Event
    from llf_core.evaluation.examples import EvaluationExample
    from llf_core.evaluation.worker_process import Progress
    from llf_core.runs import RunFolder

MODULE = "llf_core.evaluation.answers"
EVERY = 0.25  # seconds between two progress reports


@dataclass(frozen=True)
class Answer:
    """A prompt and the greedy completions of both models."""

    prompt: str
    base: str
    tuned: str


def answer(
    folder: RunFolder,
    prompts: list[str] | tuple[str, ...],
    max_new_tokens: int = 64,
    progress: Progress = worker_process.no_progress,
) -> list[Answer]:
    """Complete prompts greedily with the base model and the result of a run, and store both in `samples.jsonl`.

    Args:
        folder: run with `output/`.
        max_new_tokens: maximum number of tokens of a completion, at least 1.

    Raises:
        FileNotFoundError: the run has no result yet.
        ValueError: there are no prompts, or one has no tokens.
    """
    if not folder.output.is_dir():
        raise FileNotFoundError(f"{folder.id} has no output yet. Expected a finished run. Wait for it, or resume it.")
    if not prompts:
        raise ValueError("The list of prompts is empty. Expected at least one.")
    from llf_core.evaluation.loaded_targets import load_base_and_tuned
    from llf_core.generation import generate

    config = run_config(folder)
    texts: dict[str, list[str]] = {}
    progress("Loading the base model", 0, 0)
    for of, model, tokenizer in load_base_and_tuned(folder, config):
        counter = TokenProgress(f"Answers of the {of} model, tokens", len(prompts) * max_new_tokens, progress)
        texts[of] = generate(
            model,
            tokenizer,
            prompts,
            max_new_tokens=max_new_tokens,
            system=config.data.default_system,
            on_text=counter,
        )
        if of == "base":
            progress("Loading the tuned model", 0, 0)
    answers = [Answer(*row) for row in zip(prompts, texts["base"], texts["tuned"], strict=True)]
    reader = RunReader(folder)
    status = reader.status()
    writer = RunWriter(folder, status.attempt)
    for one in answers:
        for of in ("base", "tuned"):
            writer.sample(
                step=0 if of == "base" else status.step,
                kind="answer",
                prompt=one.prompt,
                text=getattr(one, of),
                of=of,
            )
    return answers


class TokenProgress:
    """Reports the number of generated tokens at intervals."""

    def __init__(self, what: str, most: int, progress: Progress) -> None:
        """Report that no token is generated yet."""
        self._what, self._most, self._progress = what, most, progress
        self._count, self._next = 0, 0.0
        self("", "")

    def __call__(self, *_: object) -> None:
        """Count a token."""
        now = time.monotonic()
        if now >= self._next:
            self._progress(self._what, self._count, self._most)
            self._next = now + EVERY
        self._count += 1


def answer_in_child(  # noqa: PLR0913 - as `answer`
    run_id: str,
    prompts: list[str] | tuple[str, ...],
    max_new_tokens: int = 64,
    home: Path | None = None,
    progress: Progress = worker_process.no_progress,
    *,
    trust: bool = False,
) -> list[Answer]:
    """Call `answer` in a child process: the caller loads neither a model nor torch."""
    given = [f"--tokens={max_new_tokens}", "--", run_id, *prompts]
    made = worker_process.run_in_child(MODULE, *given, home=home, progress=progress, trust=trust, of=run_id)
    return [Answer(**row) for row in made]


def main() -> None:
    """Store the completions with the run, and print them or the error: the child process of `answer_in_child`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_id")
    parser.add_argument("prompts", nargs=argparse.REMAINDER)  # also those that begin with a dash
    parser.add_argument("--tokens", type=int, default=64)
    asked = parser.parse_args()

    def make(progress: Progress) -> list[dict[str, str]]:
        made = answer(open_run(asked.run_id), asked.prompts, asked.tokens, progress)
        return [asdict(one) for one in made]

    worker_process.print_result(make, of=asked.run_id)


if __name__ == "__main__":
    main()
GREEDY = ChatSampling(temperature=0.0, repetition_penalty=1.0)


@dataclass(frozen=True)
class GeneratedAnswer:
    """The answer to a prompt.

    Attributes:
        text: without thinking, with calls as JSON after it; None if the prompt is too long or the template refuses it.
        problem: why there is no text; empty otherwise.
    """

    text: str | None
    tokens: int
    problem: str = ""


def generate_answers(  # noqa: PLR0913 - the engine, the examples and the limits
    engine: Engine,
    adapter: str | None,
    examples: Sequence[EvaluationExample],
    max_new_tokens: int,
    progress: Callable[[int], object],
    *,
    json_schema: dict[str, object] | None = None,
) -> list[GeneratedAnswer]:
    """Generate the answers to the prompts of examples, greedily; those of similar length at a time.

    At the end the engine drops its prefix cache. `json_schema` is a schema that the answers follow.
    """
    requests = [
        ChatRequest(
            one.prompt,
            adapter=adapter,
            tools=one.tools,
            sampling=GREEDY,
            max_tokens=max_new_tokens,
            json_schema=json_schema,
        )
        for one in examples
    ]
    lengths = [sum(len(str(message.get("content"))) for message in one.prompt) for one in examples]
    return [_answer(reply) for reply in collect_replies(engine, requests, lengths, progress, of_one=OF_ONE_RECORD)]


def _answer(reply: CollectedReply) -> GeneratedAnswer:
    if reply.failed is not None:
        return GeneratedAnswer(None, 0, reply.failed.message)
    finished = reply.finished
    tokens = 0 if finished is None else finished.prompt_tokens + finished.completion_tokens
    return GeneratedAnswer(reply.text, tokens)


def collect_replies(
    engine: Engine,
    requests: Sequence[ChatRequest],
    lengths: Sequence[int],
    progress: Callable[[int], object],
    *,
    of_one: Collection[str] = (),
) -> list[CollectedReply]:
    """Generate the replies to requests, those of similar length at a time. The first failure ends all of them.

    At the end the engine drops its prefix cache.

    Args:
        progress: called with the number of replies so far; what it raises is dropped.
        of_one: kinds of failures that concern a single request, whose reply has them in `failed`.

    Raises:
        EvaluationError: a request failed, as where the model ran out of memory or its logits are not numbers.
    """
    replies = [CollectedReply() for _ in requests]
    failures: list[Failed] = []
    done = 0

    def receive(number: int, event: Event) -> None:
        # An engine goes on when a listener raises, so a failure is raised below.
        nonlocal done
        if isinstance(event, Failed) and event.kind not in of_one:
            failures.append(event)
        if replies[number].take(event):
            done += 1
            progress(done)

    for number in by_length(lengths, set(range(len(requests)))):
        engine.submit(number, requests[number], lambda event, number=number: receive(number, event))  # type: ignore[misc]
    while not failures and engine.step():
        pass
    if failures:
        for number in range(len(requests)):
            engine.cancel(number)
        raise EvaluationError(failures[0].message, failures[0].what_to_do)
    engine.forget_prefixes()
    return replies

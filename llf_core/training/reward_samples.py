"""Samples and scores completions with the policy of a config before its first step."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.registry import stage_of
from llf_core.generation.generate import continuations, end_tokens, without_accelerate
from llf_core.generation.sampling import Sampling
from llf_core.models import ModelError, plan_device
from llf_core.rewards.reward_statistics import RewardedCompletion
from llf_core.runs import RunWriter
from llf_core.stages.base.stage import make_stage
from llf_core.stages.completion_scores import SampledCompletion, last_messages
from llf_core.training.load_context import load_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from llf_core.config import RunConfig
    from llf_core.runs import RunFolder
    from llf_core.stages.base.context import TrainingContext
    from llf_core.stages.completion_scores import PromptScoring


@dataclass(frozen=True)
class ScoredBatch:
    """Completions of a batch, with the durations of sampling and scoring."""

    completions: Sequence[RewardedCompletion]
    sampling_seconds: float
    scoring_seconds: float


def sample_rewards(
    config: RunConfig, folder: RunFolder, prompts: int, group_size: int, on_token: Callable[[int, int], object]
) -> Iterator[ScoredBatch]:
    """Sample several completions of random prompts of a config and score them, in batches as large as the run's.

    Model, method, data and scores are loaded as in a run. The process's random generators are seeded.

    Args:
        folder: a run folder of the config, with the sources of its functions; events and status are written there.
        on_token: called after each token with the completions so far and their total number.
    """
    context = load_context(folder, config, RunWriter(folder, 1), plan_device(config))
    scoring = make_stage(config, context).scoring()
    if scoring is None:
        raise ModelError(f"Stage {config.get('stage')} samples no completions.")
    chosen = _chosen(scoring, prompts, config.training.seed)
    ids = {index: list(context.data.examples[index]["input_ids"]) for index in chosen}
    texts = last_messages(context)
    drawn = [index for index in chosen for _ in range(group_size)]
    ends = set(end_tokens(context.model, context.tokenizer) or ())
    batch = config.training.per_device_train_batch_size * config.training.gradient_accumulation_steps
    for start in range(0, len(drawn), batch):
        part = drawn[start : start + batch]
        began = time.monotonic()
        answers = _sample(context, [ids[index] for index in part], start, lambda done: on_token(done, len(drawn)))
        sampled = time.monotonic()
        scores = scoring.score(
            [SampledCompletion(ids[index], answer, index) for index, answer in zip(part, answers, strict=True)]
        )
        scored = time.monotonic()
        completions = [
            RewardedCompletion(
                chosen.index(index),
                texts.get(index) or _text(context, ids[index]),
                _text(context, answer),
                len(answer),
                answer[-1] not in ends,
                score.total,
                dict(score.rewards),
            )
            for index, answer, score in zip(part, answers, scores, strict=True)
        ]
        yield ScoredBatch(completions, sampled - began, scored - sampled)


def _chosen(scoring: PromptScoring, prompts: int, seed: int) -> list[int]:
    usable = list(scoring.prompts)
    found = np.random.default_rng(seed).choice(len(usable), min(prompts, len(usable)), replace=False)
    return [int(usable[place]) for place in sorted(found.tolist())]


def _sample(
    context: TrainingContext, prompts: Sequence[Sequence[int]], start: int, on_done: Callable[[int], object]
) -> list[list[int]]:
    config, stage = context.config, stage_of(context.config)
    generation = config.generation
    sampling = Sampling(
        do_sample=generation.do_sample if "do_sample" in stage.generation_keys else True,
        temperature=generation.temperature,
        top_k=generation.top_k,
        top_p=generation.top_p,
        repetition_penalty=generation.repetition_penalty,
        seed=config.training.seed + start,
    )
    with without_accelerate(context.model):
        return continuations(
            context.model,
            context.tokenizer,
            prompts,
            sampling=sampling,
            max_new_tokens=[stage.completion_tokens(config, len(prompt)) for prompt in prompts],
            batch_size=len(prompts),
            on_token=lambda done, _: on_done(start + done),
        )


def _text(context: TrainingContext, ids: Sequence[int]) -> str:
    return str(context.tokenizer.decode(ids, skip_special_tokens=True))

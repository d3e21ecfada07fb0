"""Models with indexed attention compute an example of a padded batch as they compute it alone, to the last bit."""

from functools import partial

import pytest
import torch

from llf_core.acceleration.patching.causal_head import forward, forward_hidden, install_head
from llf_core.data.collate import Collator, split_batch
from llf_core.generation.generate import continuations
from llf_core.generation.sampling import Sampling
from llf_core.models.architecture import compute_rows_alone
from llf_core.models.errors import ModelError
from llf_core.stages.base.ranks import shard
from llf_core.stages.ppo.batch import answer_batch
from llf_core.stages.ppo.models import compute_policy
from tests.core.models.test_particular import INDEXED, LENGTHS, furthest, tiny, tokens

EXAMPLES = [tokens(length, seed) for seed, length in enumerate(LENGTHS)]
PROMPT = 9


def indexed(kind="deepseek_v32"):
    """A tiny model of a type, and its logits of each example alone and without padding, `[tokens, vocabulary]`."""
    model = tiny(kind, index_n_heads=1)
    with torch.no_grad():
        alone = [model(input_ids=ids[None], use_cache=False).logits[0] for ids in EXAMPLES]
    assert furthest(model) > 1e-5
    compute_rows_alone(model)
    return model, alone


def rows(batch):
    """Length of each row of a padded batch."""
    return batch["attention_mask"].sum(1).tolist()


@pytest.mark.parametrize("kind", sorted(set(INDEXED) - {"dots3_note"}))  # whose text model is another one of them
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_row_has_the_logits_of_the_example_alone(kind, side):
    model, alone = indexed(kind)
    width = max(LENGTHS) + 3
    places = [slice(length) if side == "right" else slice(width - length, width) for length in LENGTHS]
    ids, mask = (torch.zeros(len(EXAMPLES), width, dtype=torch.int64) for _ in range(2))
    for row, (place, example) in enumerate(zip(places, EXAMPLES, strict=True)):
        ids[row, place], mask[row, place] = example, 1
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    assert all(torch.equal(row[place], one) for row, place, one in zip(logits, places, alone, strict=True))


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_so_have_the_parts_of_a_batch_that_did_not_fit(tiny_tokenizer, parts):
    model, alone = indexed()
    assert install_head(model) is None
    batch = Collator(tiny_tokenizer)([{"input_ids": ids, "labels": ids} for ids in EXAMPLES])
    split = split_batch(batch, parts)
    assert len(split) == parts
    with torch.no_grad():
        logits = [row for part in split for row in forward(model, part, lambda hidden, head: head.logits(hidden))]
    assert all(torch.equal(row[: len(one)], one) for row, one in zip(logits, alone, strict=True))


def test_sampled_completions_have_the_log_probabilities_and_rewards_that_they_have_alone(tiny_tokenizer):
    model, alone = indexed()
    assert install_head(model) is None
    pairs = [(ids[:PROMPT].tolist(), ids[PROMPT:].tolist()) for ids in EXAMPLES]
    batch = answer_batch(*zip(*pairs, strict=True), tiny_tokenizer, flatten=False)
    assert rows(batch) == list(LENGTHS)
    with torch.no_grad():
        found = compute_policy(model, batch, 1.0).log_probs.split([len(answer) for _, answer in pairs])
        each = [compute_policy(model, answer_batch([p], [a], tiny_tokenizer, flatten=False), 1.0) for p, a in pairs]
        hidden = forward_hidden(model, batch, lambda states: states.flatten(0, 1)[batch["ends"]])
        ends = [model.model(input_ids=ids[None], use_cache=False)[0][0, -1] for ids in EXAMPLES]
    for own, one, ids, logits in zip(found, each, EXAMPLES, alone, strict=True):
        assert torch.equal(own, one.log_probs)
        wanted = logits[PROMPT - 1 : -1].log_softmax(-1).gather(1, ids[PROMPT:, None])[:, 0]
        torch.testing.assert_close(own, wanted, rtol=1e-6, atol=1e-6)
    assert torch.equal(hidden, torch.stack(ends))


def test_prompts_are_completed_as_alone(tiny_tokenizer):
    model, _ = indexed()
    prompts = [ids.tolist() for ids in (*EXAMPLES, tokens(LENGTHS[0], seed=9))]
    greedy = partial(continuations, model, tiny_tokenizer, sampling=Sampling(), max_new_tokens=12)
    together = greedy(prompts)
    assert together == [greedy([one])[0] for one in prompts]
    assert len({tuple(one) for one in together}) == len(prompts)


def test_gradients_are_those_of_the_examples_alone(tiny_tokenizer):
    model, _ = indexed()
    batch = Collator(tiny_tokenizer)([{"input_ids": ids, "labels": ids} for ids in EXAMPLES])

    def gradients(*inputs):
        model.zero_grad()
        for one in inputs:
            logits = model(**one, use_cache=False).logits
            mask = one.get("attention_mask", torch.ones(logits.shape[:2]))
            (logits.square().mean(-1) * mask).sum().backward()
        return torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])

    found = gradients({key: batch[key] for key in ("input_ids", "attention_mask")})
    wanted = gradients(*({"input_ids": ids[None]} for ids in EXAMPLES))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_ranks_that_would_wait_for_each_others_rows_are_refused():
    with pytest.raises(ModelError, match=r"FSDP2 does not train models with indexed attention\. Set strategy: ddp"):
        shard(tiny("deepseek_v32"), torch.device("cpu"))


def test_rows_that_the_index_takes_whole_are_computed_together():
    model = tiny("deepseek_v32", index_n_heads=1)
    compute_rows_alone(model)
    calls = []
    model.model.layers[0].register_forward_pre_hook(lambda _, args: calls.append(args[0].shape[:2]))
    for width in (model.config.index_topk, model.config.index_topk + 1):
        mask = torch.ones(2, width, dtype=torch.int64)
        mask[1, -3:] = 0
        with torch.no_grad():
            model(input_ids=torch.ones_like(mask), attention_mask=mask, use_cache=False)
    assert calls == [(2, 8), (1, 9), (1, 6)]

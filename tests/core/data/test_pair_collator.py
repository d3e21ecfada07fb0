"""Pairs of answers as a batch: what is read once, which hidden state predicts what, and how a batch is cut."""

import random
from itertools import pairwise

import pytest
import torch

from llf_core.acceleration.patching.install import accelerate
from llf_core.data.collate import (
    PairCollator,
    common_prefix_length,
    document_count,
    split_batch,
    token_count,
    trained_token_count,
)
from llf_core.stages.reference_logprobs import answer_log_probs
from tests.tiny import tiny_llama

KINDS = {"forked": {"flatten": True, "fork": True}, "apart": {"flatten": True}, "padded": {}}


def group(question, chosen, rejected, **more):
    blind = [-100] * len(question)
    return {
        "input_ids": question + chosen,
        "labels": blind + chosen,
        "rejected_ids": question + rejected,
        "rejected_labels": blind + rejected,
        **more,
    }


def groups(count=5, seed=0):
    draw = random.Random(seed)

    def words(least, most):
        return [draw.randrange(5, 60) for _ in range(draw.randrange(least, most))]

    made = []
    for number in range(count):
        question, start = words(1, 30), words(0, 3)
        made.append(group(question, start + words(1, 20), start + words(1, 20), number=number, reference=[number, 0.5]))
    return made


def sequences(feature):
    return [(feature["input_ids"], feature["labels"]), (feature["rejected_ids"], feature["rejected_labels"])]


def plain(model, features):
    """Log-probabilities of each answer by itself, in the plainest way."""
    found = []
    for feature in features:
        for ids, labels in sequences(feature):
            logits = model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
            found.append(sum(logits[at - 1, token] for at, token in enumerate(labels) if at and token != -100))
    return torch.stack(found)


def test_the_question_stands_once_and_the_second_answer_predicts_from_its_end(tiny_tokenizer):
    batch = PairCollator(tiny_tokenizer, flatten=True, fork=True)([group([5, 6, 7], [8, 9], [10])])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 10]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 3]]
    assert batch["cu_seq_lens_q"].tolist() == [0, 6]
    assert batch["forks"].tolist() == [[3, 5]]
    assert batch["predictors"].tolist() == [2, 3, 2]
    assert batch["targets"].tolist() == [8, 9, 10]
    assert batch["answers"].tolist() == [0, 0, 1]
    assert batch["ends"].tolist() == [4, 5]


def test_answers_that_begin_alike_share_that_too_but_never_their_last_token():
    first, second = torch.tensor([1, 2, 3, 4]).numpy(), torch.tensor([1, 2, 9]).numpy()
    assert common_prefix_length(first, second) == 2
    assert common_prefix_length(first, first[:3]) == 2
    assert common_prefix_length(first, first) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_log_probabilities_are_those_of_each_answer_by_itself(tiny_tokenizer, kind):
    model, features = tiny_llama(tiny_tokenizer).double().eval(), groups()
    expected = plain(model, features)
    found = accelerate(model)
    assert found.forks
    answers = answer_log_probs(model, PairCollator(tiny_tokenizer, **KINDS[kind])(features))
    torch.testing.assert_close(answers.sums, expected, rtol=1e-9, atol=0)
    lengths = [sum(label != -100 for label in labels) for feature in features for _, labels in sequences(feature)]
    assert answers.lengths.tolist() == lengths


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_each_answer_by_itself(tiny_tokenizer, kind):
    factors = torch.linspace(-1, 2, 10, dtype=torch.float64)
    model, features = tiny_llama(tiny_tokenizer).double(), groups()
    (plain(model, features) * factors).sum().backward()
    expected = {name: one.grad.clone() for name, one in model.named_parameters()}
    model.zero_grad()
    accelerate(model)
    answers = answer_log_probs(model, PairCollator(tiny_tokenizer, **KINDS[kind])(features))
    (answers.sums * factors).sum().backward()
    for name, one in model.named_parameters():
        # transformers' norms round to float32, here the sum of two gradients and there each of them.
        limit = 1e-6 * float(expected[name].abs().max())
        torch.testing.assert_close(one.grad, expected[name], rtol=0, atol=limit)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parts", [2, 3, 5, 9])
def test_parts_of_a_batch_are_batches_of_its_pairs(tiny_tokenizer, kind, parts):
    model, features = tiny_llama(tiny_tokenizer).double().eval(), groups()
    accelerate(model)
    collate = PairCollator(tiny_tokenizer, **KINDS[kind])
    batch = collate(features)
    cut = split_batch(batch, parts)
    assert [document_count(part) for part in cut] == [len(part["numbers"]) for part in cut]
    assert sum(document_count(part) for part in cut) == 5
    assert len(cut) == min(parts, 5)
    assert torch.cat([part["reference"] for part in cut]).tolist() == [[n, 0.5] for n in range(5)]
    assert sum(int(token_count(part)) for part in cut) == int(token_count(batch))
    assert sum(int(trained_token_count(part)) for part in cut) == len(batch["targets"])
    whole = answer_log_probs(model, batch).sums
    torch.testing.assert_close(torch.cat([answer_log_probs(model, part).sums for part in cut]), whole)
    for part, (first, last) in zip(cut, pairwise(starts(cut)), strict=True):
        alone = collate(features[first:last])
        assert part.keys() == alone.keys()
        for key, value in alone.items():
            assert torch.equal(torch.as_tensor(part[key]), torch.as_tensor(value)), key


def starts(parts):
    total, found = 0, [0]
    for part in parts:
        total += document_count(part)
        found.append(total)
    return found

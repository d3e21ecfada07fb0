"""lm-eval's requests through the chat's engine, against lm-eval's own `HFLM` on the same model."""

import random
from types import SimpleNamespace

import pytest
import torch
from lm_eval.models.huggingface import HFLM
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from llf_core.chat.engine import Engine
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.harness import continuations
from llf_core.evaluation.harness.continuations import Continuation, ContinuationScorer, token_trees
from llf_core.evaluation.harness.live_model import LiveModel
from llf_core.evaluation.worker_process import no_progress
from llf_core.generation.checked_forward import CheckedForward

WORDS = [
    "the",
    "sea",
    "ship",
    "light",
    "of",
    "lighthouse",
    "one",
    "two",
    "three",
    "plants",
    "sugar",
    "Paris",
    "what",
    "is",
    "1",
    "+",
    "2",
    "=",
    "你好",
    "é",
]


@pytest.fixture(scope="module")
def models(tiny_model_dir, tmp_path_factory):
    """The base and an adapter: LLF's engine with both, and an `HFLM` of each."""
    from peft import LoraConfig, get_peft_model

    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    torch.manual_seed(0)
    tuned = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model_dir), LoraConfig(r=4, target_modules=["q_proj", "down_proj"])
    )
    for key, parameter in tuned.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.5)
    folder = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(folder)
    engine = Engine(AutoModelForCausalLM.from_pretrained(tiny_model_dir), tokenizer)
    engine.load_adapter("tuned", folder)
    ours = {name: LiveModel(engine, name, tokenizer, no_progress) for name in (None, "tuned")}
    plain = AutoModelForCausalLM.from_pretrained(tiny_model_dir).eval()
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_dir), folder).eval()
    theirs = {
        name: HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, device="cpu")
        for name, model in ((None, plain), ("tuned", adapted))
    }
    return ours, theirs


def some_text(numbers, longest):
    return " ".join(numbers.choices(WORDS, k=numbers.randint(1, longest)))


def requests(*args):
    return [SimpleNamespace(args=one, task_name="test") for one in args]


@pytest.mark.parametrize("name", [None, "tuned"])
def test_loglikelihoods_equal_those_of_hflm(models, name):
    ours, theirs = (both[name] for both in models)
    numbers = random.Random(1)
    asked = [("", " the sea"), (some_text(numbers, 1500) + " x" * 1100, " light"), ("ship ", "light")]
    shots = ours.apply_chat_template([{"role": "user", "content": some_text(numbers, 80)}])
    for _ in range(12):
        context = shots + some_text(numbers, 20)
        choices = [" A", " B"] if numbers.random() < 0.3 else [f" {some_text(numbers, 6)}" for _ in range(4)]
        asked += [(context, choice) for choice in choices]
    numbers.shuffle(asked)
    found, expected = ours.loglikelihood(requests(*asked)), theirs.loglikelihood(requests(*asked), disable_tqdm=True)
    assert [one for one, _ in found] == pytest.approx([one for one, _ in expected], abs=1e-4)
    assert [one for _, one in found] == [one for _, one in expected]
    assert (ours._scorer.plain, ours._scorer._checked) == (None, True)
    texts = [(some_text(numbers, 30),), (some_text(numbers, 10) + " sea" * 1500,)]
    rolled = theirs.loglikelihood_rolling(requests(*texts), disable_tqdm=True)
    assert ours.loglikelihood_rolling(requests(*texts)) == pytest.approx(rolled, rel=1e-6)


@pytest.mark.parametrize("name", [None, "tuned"])
def test_replies_equal_those_of_hflm(models, name):
    ours, theirs = (both[name] for both in models)
    numbers = random.Random(2)
    asked = []
    for number in range(9):
        settings = {"until": ["\n\n", " sea"] if number % 2 else ["a"], "max_gen_toks": 4 + number, "do_sample": False}
        chat = ours.apply_chat_template([{"role": "user", "content": some_text(numbers, 20)}])
        asked.append((chat if number % 3 else some_text(numbers, 20), settings))
    assert ours.generate_until(requests(*asked)) == theirs.generate_until(requests(*asked), disable_tqdm=True)
    with pytest.raises(EvaluationError, match="num_beams"):
        ours.generate_until(requests(("the", {"num_beams": 4})))


def test_replies_that_are_not_generated_are_an_error(models, monkeypatch):
    """A model whose logits are not numbers has no results; its replies would be empty."""
    ours = models[0][None]

    def broken(*_):
        raise FloatingPointError("no numbers")

    with monkeypatch.context() as patched:
        patched.setattr(CheckedForward, "read", broken)
        with pytest.raises(EvaluationError):
            ours.generate_until(requests(("the", {"max_gen_toks": 4})))
    replies = ours.generate_until(requests(("the", {"max_gen_toks": 4, "until": []})))
    assert len(replies) == 1
    with pytest.raises(EvaluationError, match="no token that ends a text"):
        LiveModel.eot_token_id.fget(SimpleNamespace(tokenizer=SimpleNamespace(eos_token_id=None)))


def test_common_prefixes_are_read_once():
    prefix = tuple(range(50, 150))
    asked = [Continuation((*prefix, *range(at, at + 8)), tuple(range(at, at + 8))) for at in range(3, 33)]
    trees = token_trees(asked, branching=True, attention_tokens=1e9, limit=2048)
    assert [len(tree.tokens) for tree in trees] == [100 + 30 * 8]
    chains = token_trees(asked, branching=False, attention_tokens=1e9, limit=2048)
    assert [len(tree.tokens) for tree in chains] == [108] * 30
    assert all(tree.is_chain for tree in chains)


def test_a_model_that_ignores_the_mask_is_read_one_by_one(models, monkeypatch):
    engine = models[0][None]._engine
    asked = [Continuation((*range(50, 90), at, at + 1), (at + 1, 7)) for at in range(3, 9)]
    with engine.adapters.active(None) as model:
        expected = ContinuationScorer(model).score(asked, lambda _: None)
        plain = continuations.forward
        monkeypatch.setattr(
            continuations, "forward", lambda model, given, do: plain(model, {"input_ids": given["input_ids"]}, do)
        )
        scorer = ContinuationScorer(model)
        found = scorer.score(asked, lambda _: None)
    assert "mask" in scorer.plain
    assert [one.logprob for one in found] == pytest.approx([one.logprob for one in expected], abs=1e-4)
    assert [one.greedy for one in found] == [one.greedy for one in expected]

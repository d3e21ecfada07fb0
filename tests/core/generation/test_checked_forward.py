import pytest
import torch

from llf_core.generation import prepare_weights
from llf_core.generation.checked_forward import MAX_PROMPT, CheckedForward, ModelForward
from llf_core.generation.kv_cache import growing_cache

PROMPT = [(7 * number) % 90 + 1 for number in range(40)]


def read(forward, pieces):
    """Logits after each piece of a prompt, and the cache."""
    cache = growing_cache(2, 64)
    found, past = [], 0
    for piece in pieces:
        positions = torch.arange(past, past + len(piece))[None]
        found.append(forward(torch.tensor([piece]), positions, None, cache))
        past += len(piece)
    return torch.cat(found), cache


KINDS = ["llama", "mistral", "qwen2", "qwen3", "gemma"]
PIECES = [PROMPT[:17], PROMPT[17:19], PROMPT[19:]]


def read_fast(model):
    """The pieces, read without the model's own forward, whose first prompt is another one."""
    prepare_weights(model)
    forward, calls = CheckedForward(model), []
    read(forward.read, [PROMPT[5:20]])
    handle = model.get_decoder().register_forward_pre_hook(lambda *_: calls.append(1))
    found = read(forward.read, PIECES)
    handle.remove()
    assert calls == []
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_short_prompts_give_the_logits_and_the_cache_of_the_models_own_forward(models, kind):
    model = models(kind)
    expected, own_cache = read(ModelForward(model), PIECES)
    found, cache = read_fast(model)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    for layer, own in zip(cache.layers, own_cache.layers, strict=True):
        for one, other in ((layer.keys, own.keys), (layer.values, own.values)):
            assert one.shape == other.shape
            assert (one - other).abs().max() <= 1e-5 * other.abs().max()


@pytest.mark.parametrize("kind", KINDS)
def test_short_prompts_in_bfloat16_are_as_exact_as_by_the_models_own_forward(models, kind):
    model = models(kind).to(torch.bfloat16)
    exact, _ = read(ModelForward(models(kind).to(torch.bfloat16).float()), PIECES)
    own, _ = read(ModelForward(model), PIECES)
    found, _ = read_fast(model)
    assert found.dtype == torch.bfloat16
    assert (found - exact).square().mean() <= 2 * (own - exact).square().mean()


def test_long_padded_and_unlike_prompts_are_read_by_the_model(models, monkeypatch):
    model = models("llama")
    forward = CheckedForward(model)
    calls = []
    model.get_decoder().register_forward_pre_hook(lambda *_: calls.append(1))
    read(forward.read, [PROMPT])
    read(forward.read, [PROMPT])
    assert len(calls) == 1
    read(forward.read, [[1] * (MAX_PROMPT + 1)])
    assert len(calls) == 2
    tokens, mask = torch.tensor([PROMPT] * 2), torch.ones(2, 40, dtype=torch.bool)
    forward.read(tokens, torch.arange(40).expand(2, -1), mask, growing_cache(2, 64))
    assert len(calls) == 3

    fast = type(forward._fast)
    own = fast.read
    monkeypatch.setattr(fast, "read", lambda *given: own(*given) + 1.0)
    unlike = CheckedForward(model)
    read(unlike.read, [PROMPT, PROMPT[:5]])
    assert len(calls) == 5
    assert unlike.plain is None  # single tokens agree

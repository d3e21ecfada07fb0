import pytest
import torch

from llf_core.generation.batches import Decoder
from llf_core.generation.decoder_block import RMSNorm, attend_to_past
from llf_core.generation.sampling import Sampling
from llf_core.generation.weight_products import join_weights
from tests.core.generation.small_models import CONFIGS, PROMPTS, by_transformers, continued

FAST = {"llama", "mistral", "qwen2", "qwen3", "gemma"}


@pytest.mark.parametrize("kind", CONFIGS)
def test_greedy_tokens_are_those_of_transformers(models, kind):
    model = models(kind)
    expected = [by_transformers(model, prompt, 24) for prompt in PROMPTS]
    decoder = Decoder(model)
    alone = [continued(decoder, [prompt], 24)[0] for prompt in PROMPTS]
    assert alone == expected
    assert (decoder.plain is None) is (kind in FAST), decoder.plain
    assert continued(decoder, PROMPTS, 24) == expected
    assert len({tuple(one) for one in expected}) == len(PROMPTS)
    assert any(len(set(one)) > 3 for one in expected)


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_rows_that_end_leave_the_batch_and_the_others_go_on_as_alone(models, kind):
    model = models(kind)
    expected = [
        by_transformers(model, prompt, 20)[:count] for prompt, count in zip(PROMPTS, (3, 20, 9, 1), strict=True)
    ]
    counts = [0] * 4

    def ends(row, _):
        counts[row] += 1
        return counts[row] == (3, 20, 9, 1)[row]

    decoder = Decoder(model)
    assert continued(decoder, PROMPTS, 20, ends=ends) == expected
    assert decoder._rows.lengths == [len(PROMPTS[1]) + 19]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7},
        {"top_k": 5},
        {"top_p": 0.8, "temperature": 1.3},
        {"top_p": 0.9, "top_k": 20, "repetition_penalty": 1.4},
    ],
)
def test_drawn_tokens_are_those_of_transformers_with_the_same_seed(models, kind, settings):
    model = models(kind)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        asked = {"top_k": 0} | settings
        expected = by_transformers(model, PROMPTS[0], 24, do_sample=True, **asked)
    found = continued(Decoder(model), PROMPTS[:1], 24, Sampling(do_sample=True, seed=3, **settings))
    assert found == [expected]
    assert found != continued(Decoder(model), PROMPTS[:1], 24, Sampling(do_sample=True, seed=4, **settings))


def test_a_repetition_penalty_sees_no_padding(models):
    model = models("llama")
    for top_p in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"top_p is {top_p}"):
            Sampling(do_sample=True, top_p=top_p).warpers()
    penalty = Sampling(repetition_penalty=1.8)
    expected = [by_transformers(model, prompt, 16, repetition_penalty=1.8) for prompt in PROMPTS]
    assert continued(Decoder(model), PROMPTS, 16, penalty) == expected
    assert expected[0] != by_transformers(model, PROMPTS[0], 16)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_scores_of_a_padded_batch_are_those_of_each_row_alone(models, kind):
    decoder = Decoder(models(kind))
    together = [decoder.read(PROMPTS, 4), decoder.step([9, 10, 11, 12])]
    for row, prompt in enumerate(PROMPTS):
        alone = [decoder.read([prompt], 4), decoder.step([9 + row])]
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[row], other[0], rtol=1e-4, atol=1e-4)


def test_a_forward_that_gives_other_scores_is_dropped(models):
    model = models("llama")
    expected = by_transformers(model, PROMPTS[0], 12)
    norm = model.model.layers[1].post_attention_layernorm
    plain = model.model.layers[1].mlp.forward
    model.model.layers[1].mlp.forward = lambda x: 1.5 * plain(x)  # what a subclass might do, unseen from outside
    other = by_transformers(model, PROMPTS[0], 12)
    assert norm.weight.shape == (64,)
    decoder = Decoder(model)
    assert continued(decoder, [PROMPTS[0]], 12) == [other] != [expected]
    assert "other logits" in decoder.plain


@pytest.mark.parametrize(
    "compute",
    [lambda x, scale: x * scale, lambda x: (x, None), lambda x: x[:1], lambda x: x],
    ids=["conditioned", "a pair", "another shape", "no norm"],
)
def test_a_norm_of_another_form_is_left_to_the_model(compute):
    class Norm(torch.nn.RMSNorm):
        forward = staticmethod(compute)

    assert RMSNorm.read(Norm(8, eps=1e-6)) is None
    assert RMSNorm.read(torch.nn.RMSNorm(8, eps=1e-6)) is not None


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 2**-8)], ids=str
)
@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4], ids=lambda size: f"size {size:g}")
@pytest.mark.parametrize("shape", [(96,), (8, 96), (2, 3, 96)], ids=str)
def test_the_norm_is_that_of_the_formula_for_rows_of_any_size(dtype, tolerance, size, shape):
    random = torch.Generator().manual_seed(0)
    x = (size * (3.0 + torch.randn(shape, generator=random))).to(dtype)  # a mean that a layer norm would remove
    weight = torch.rand(96, generator=random).to(dtype)
    exact = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight.double()
    found = RMSNorm(weight, 1e-5)(x)
    assert found.dtype == dtype
    assert found.shape == x.shape
    assert ((found.double() - exact).abs() <= tolerance * exact.abs()).all()


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_joined_weights_are_the_same_parameters_in_one_buffer(models, kind, tmp_path):
    model = models(kind)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = by_transformers(model, PROMPTS[0], 12)
    assert join_weights(model) == 4
    assert join_weights(model) == 0
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.weight.data_ptr() + attention.q_proj.weight.nbytes == attention.k_proj.weight.data_ptr()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    decoder = Decoder(model)
    assert continued(decoder, [PROMPTS[0]], 12) == [expected] == [by_transformers(model, PROMPTS[0], 12)]
    assert decoder.plain is None
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in again.state_dict().items())


def test_bfloat16_goes_through_the_fast_forward(models):
    model = models("qwen2").bfloat16()
    decoder = Decoder(model)
    assert len(continued(decoder, PROMPTS, 8)[0]) == 8
    assert decoder.plain is None


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_in_bfloat16_a_row_gets_the_logits_that_it_gets_alone(models, kind, alike, monkeypatch):
    if not alike:  # a processor whose attention adds up other widths in another order
        monkeypatch.setattr("llf_core.generation.decoder_block.attends_alike", lambda *_: False)
    decoder = Decoder(models(kind).bfloat16())
    prompts = [[(7 * at + number) % 290 + 3 for number in range(5 + 13 * at)] for at in range(11)]
    decoder.read(prompts[:1], 1)
    alone = [[decoder.read([one], 6), *(decoder.step([token]) for token in range(40, 45))] for one in prompts]
    together = [decoder.read(prompts, 6), *(decoder.step([token] * 11) for token in range(40, 45))]
    for row, expected in enumerate(alone):
        assert all(torch.equal(found[row], one[0]) for found, one in zip(together, expected, strict=True))
    assert decoder.plain is None


@pytest.mark.parametrize("seed", [56135, 58958])  # of 60,000, those that differ without padding (AVX512)
def test_in_bfloat16_each_thread_computes_the_same_attention(seed):
    threads, generator = torch.get_num_threads(), torch.Generator().manual_seed(seed)
    drawn = [torch.randn(1, 3, number, 64, generator=generator).bfloat16() for number in (3, 48, 48)]
    torch.set_num_threads(2)
    try:
        rows, keys, values = (one.expand(4, -1, -1, -1) for one in drawn)
        found = attend_to_past(rows, keys, values, None)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found, found[:1].expand_as(found))
    query, key, value = (one[0].double() for one in drawn)
    exact = torch.softmax(query @ key.mT / 8, dim=-1) @ value
    assert (found[0].double() - exact).abs().max() < 0.01

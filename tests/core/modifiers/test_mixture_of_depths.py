"""Mixture-of-Depths: who passes, equation 1 in float64, generation, and runs that save, load and resume."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import logsigmoid, pad, silu
from transformers import AutoModelForCausalLM

from llf_core.acceleration.patching.install import accelerate
from llf_core.config import RunConfig, name_checks, validate
from llf_core.generation import generate
from llf_core.generation.decoder_block import unsupported
from llf_core.models import ModelError, load_model, load_tokenizer, plan_device, resolve_model
from llf_core.models.mixture_of_depths import (
    SETTINGS,
    documents_of,
    highest_of_each,
    read_settings,
    restore_routers,
    router_weights,
    routers_of,
    routing_of,
)
from llf_core.modifiers.mixture_of_depths import MixtureOfDepths, convert
from llf_core.runs import RunReader, read_status
from llf_core.stages.sft import SFT
from llf_core.training import save_run_result
from llf_core.training.session import run_attempt
from tests.core.acceleration.architectures import tiny
from tests.core.models.tiny_configs import tiny_config
from tests.core.training.adapted import in_float32, logits
from tests.core.training.test_session import next_attempt, stop_at

__all__ = ["in_float32"]
KEYS = {"finetuning_type": "full", "mixture_of_depths": "convert", "mod_capacity": 0.5}
CPU = torch.device("cpu")


def routed(name="llama", capacity=0.5, every=2, dtype=torch.float64, **changes):
    """A tiny converted model whose routers have learned something: weights of both signs, all different."""
    model = tiny(name, dtype, **changes)
    convert(model, capacity, every)
    generator = torch.Generator().manual_seed(1)
    for router in routers_of(model):
        router.weight.data = torch.randn(router.weight.shape, generator=generator).to(dtype) * 0.5
        router.bias.data.fill_(0.1)
    return model


def rows(*lengths):
    """Token ids of documents, different ones in each."""
    return [(torch.arange(length) * 7 + 11 * number + 3) % 90 for number, length in enumerate(lengths)]


def padded(ids, width):
    batch = torch.zeros(len(ids), width, dtype=torch.int64)
    mask = torch.zeros_like(batch)
    for row, one in enumerate(ids):
        batch[row, : len(one)], mask[row, : len(one)] = one, 1
    return {"input_ids": batch, "attention_mask": mask}


def flattened(ids, filler=0):
    joined = torch.cat([*ids, torch.zeros(filler, dtype=torch.int64)])
    bounds = torch.tensor([0] + [len(one) for one in ids]).cumsum(0).to(torch.int32)
    positions = torch.cat([*(torch.arange(len(one)) for one in ids), torch.zeros(filler, dtype=torch.int64)])
    longest = max(map(len, ids))
    return {
        "input_ids": joined[None], "position_ids": positions[None], "cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds,
        "max_length_q": longest, "max_length_k": longest, "attention_mask": torch.empty(1, 1, 0, 0),
    }  # fmt: skip


# -- who passes


@pytest.mark.parametrize(
    ("weights", "capacity", "expected"),
    [
        ([0.1, 0.9, 0.5, 0.7], 0.5, [1, 3]),
        ([0.1, 0.9, 0.5, 0.7, -1.0], 0.5, [1, 3]),  # 2.5 tokens are 2
        ([-3.0, -1.0, -2.0], 0.3, [1]),  # 0.9 tokens are 1
        ([2.0, 1.0, 2.0, 2.0], 0.5, [0, 2]),  # of equal ones, the first
        ([1.0, 1.0], 1.0, [0, 1]),
        ([0.0] * 100, 0.29, list(range(29))),  # 0.29 * 100 is 28.999999999999996
    ],
)
def test_the_highest_weights_pass_as_many_as_the_capacity(weights, capacity, expected):
    weights = torch.tensor([weights])
    chosen = highest_of_each(weights, documents_of(weights.shape, {}, capacity, CPU))
    assert chosen[0].nonzero()[:, 0].tolist() == expected


def test_padding_takes_no_capacity():
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    weights = torch.tensor([[1.0, 4, 2, 3, 9, 9], [9.0, 9, 1, 2, 3, 4], [1.0, 2, 3, 4, 5, 6]])
    documents = documents_of(weights.shape, {"attention_mask": mask}, 0.5, CPU)
    assert documents.capacity.tolist() == [2, 2, 3, 0]
    expected = [[0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]]
    assert highest_of_each(weights, documents).int().tolist() == expected


@pytest.mark.parametrize(
    "batch",
    [
        {"cu_seq_lens_q": torch.tensor([0, 4, 7], dtype=torch.int32)},  # and two tokens behind
        {"cu_seq_lens_q": torch.tensor([0, 4, 7], dtype=torch.int32), "attention_mask": torch.empty(1, 1, 0, 0)},
    ],
)
def test_each_document_of_a_packed_row_has_its_own_capacity(batch):
    weights = torch.tensor([[1.0, 2, 3, 4, -5, -6, -7, 99, 99]])
    documents = documents_of(weights.shape, batch, 0.5, CPU)
    assert documents.capacity.tolist() == [2, 1, 0]
    assert highest_of_each(weights, documents).int().tolist() == [[0, 0, 1, 1, 1, 0, 0, 0, 0]]


def test_without_bounds_or_mask_documents_are_those_of_the_positions():
    weights = torch.tensor([[1.0, 2, 3, 4, -5, -6, -7]])
    documents = documents_of(weights.shape, {"position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2]])}, 0.5, CPU)
    assert highest_of_each(weights, documents).int().tolist() == [[0, 0, 1, 1, 1, 0, 0]]


def test_a_mask_that_hides_the_documents_is_refused_in_training_and_read_in_evaluation():
    model = routed()
    ids = rows(6)[0][None]
    mask = torch.ones(1, 1, 6, 6, dtype=torch.bool).tril()
    with pytest.raises(ValueError, match=r"attention_mask of shape \[1, 1, 6, 6\] does not tell"):
        model.train()(input_ids=ids, attention_mask=mask)
    model.eval()
    torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, model(input_ids=ids).logits)


# -- equation 1, by an implementation of a Llama that computes everything and masks


def reference(model, ids, *, training):
    """Logits `[tokens, V]` of one document, and the auxiliary loss, in plain operations.

    All tokens are computed in each block; who does not pass is masked as a key, and keeps its input.
    """
    config, decoder = model.config, model.model
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    dim = config.hidden_size // heads
    count = len(ids)

    def norm(x, one):
        return x * (x.pow(2).mean(-1, keepdim=True) + config.rms_norm_eps) ** -0.5 * one.weight

    frequencies = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies

    def rotate(x):  # [tokens, heads, dim]
        one, two = x[..., : dim // 2], x[..., dim // 2 :]
        cos, sin = angles.cos()[:, None], angles.sin()[:, None]
        return torch.cat((one * cos - two * sin, two * cos + one * sin), -1)

    x = decoder.embed_tokens.weight[ids]
    losses = []
    for layer in decoder.layers:
        router = getattr(layer, "mod_router", None)
        passing, weight = torch.ones(count, dtype=torch.bool), x.new_ones(count)
        if router is not None:
            weight = x @ router.weight[0] + router.bias[0]
            passing = weight > 0
            if training:
                best = sorted(range(count), key=lambda i: -weight[i].item())
                passing = torch.zeros(count, dtype=torch.bool)
                passing[best[: max(1, math.floor(model.config.mixture_of_depths["capacity"] * count))]] = True
                losses.append(-logsigmoid(torch.where(passing, weight, -weight)).sum())
        attention, mlp = layer.self_attn, layer.mlp
        inner = norm(x, layer.input_layernorm)
        q, k, v = (
            (inner @ one.weight.T).view(count, -1, dim)
            for one in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        q, k = rotate(q), rotate(k)
        k, v = (one.repeat_interleave(heads // groups, 1) for one in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * dim**-0.5
        seen = torch.ones(count, count, dtype=torch.bool).tril() & (passing[None] | torch.eye(count, dtype=torch.bool))
        mixed = torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -math.inf).softmax(-1), v)
        y = x + mixed.reshape(count, -1) @ attention.o_proj.weight.T
        inner = norm(y, layer.post_attention_layernorm)
        y = y + (silu(inner @ mlp.gate_proj.weight.T) * (inner @ mlp.up_proj.weight.T)) @ mlp.down_proj.weight.T
        x = torch.where(passing[:, None], x + weight[:, None] * (y - x), x)
    logits = norm(x, decoder.norm) @ model.lm_head.weight.T
    return logits, torch.stack(losses).mean() if losses else None


LENGTHS = (9, 4, 14)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("how", ["sdpa", "eager", "flattened", "one"])
def test_it_computes_equation_1(how, training, every):
    model = routed(every=every, num_hidden_layers=4).train(training)
    documents = rows(*LENGTHS[:1]) if how == "one" else rows(*LENGTHS)
    expected, losses = zip(*(reference(model, one, training=training) for one in documents), strict=True)
    if how == "flattened":
        assert accelerate(model).flattens
        found = model(**flattened(documents, filler=3)).logits[0].split([*LENGTHS, 3])[:3]
    elif how == "one":
        found = [model(input_ids=documents[0][None]).logits[0]]
    else:
        model.set_attn_implementation(how)
        found = model(**padded(documents, 16)).logits
    found = [one[: len(ids)] for one, ids in zip(found, documents, strict=True)]
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm()  # transformers' norms and angles are float32
    loss, other = (sum(one.square().sum() for one in outputs) for outputs in (found, expected))
    if training:
        extra = routing_of(model).take_loss()
        assert extra.tokens == sum(map(len, documents))
        torch.testing.assert_close(extra.total, sum(losses), rtol=1e-5, atol=0)
        loss, other = loss + extra.total, other + sum(losses)
    else:
        assert routing_of(model).take_loss() is None
    parameters = [one for one in model.parameters() if one.requires_grad]
    for one, two in zip(*(torch.autograd.grad(x, parameters) for x in (loss, other)), strict=True):
        assert (one - two).norm() <= 1e-4 * two.norm()


def test_the_gradient_of_a_router_weight_is_what_the_block_adds():
    model = routed().train()
    ids = rows(8)[0][None]
    block = model.model.layers[1]
    kept = {}
    hook = block.register_forward_hook(lambda _, args, output: kept.update(x=args[0], out=output))
    logits = model(input_ids=ids).logits
    hook.remove()
    passing = (kept["out"] != kept["x"]).any(-1)[0]
    assert passing.sum() == 4
    slope = torch.autograd.grad(logits.sum(), kept["out"], retain_graph=True)[0]
    weights = router_weights(block.mod_router, kept["x"])[0]
    added = (kept["out"] - kept["x"])[0] / weights[:, None]
    expected = ((slope[0] * added).sum(-1) * passing).sum()
    found = torch.autograd.grad(logits.sum(), block.mod_router.bias)[0]
    torch.testing.assert_close(found[0], expected)
    assert abs(expected) > 1e-3


# A product with another number of rows rounds differently on some processors, so the comparison is in float64.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.bfloat16, 2**-7)])
def test_with_all_capacity_and_weights_of_1_it_is_the_plain_model(dtype, tolerance):
    plain, model = tiny("llama", dtype), tiny("llama", dtype)
    convert(model, 1.0, 1)
    batch = padded(rows(9, 4), 12)
    real = batch["attention_mask"].bool()
    for training in (True, False):
        one, other = (each.train(training)(**batch).logits[real] for each in (model, plain))
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def test_a_converted_model_computes_in_evaluation_what_it_did():
    plain, model = tiny("llama", torch.float64), tiny("llama", torch.float64)
    convert(model, 0.125, 2)
    batch = padded(rows(9, 4), 12)
    real = batch["attention_mask"].bool()
    expected = plain.eval()(**batch).logits[real]
    torch.testing.assert_close(model.eval()(**batch).logits[real], expected, rtol=1e-12, atol=1e-12)
    assert (model.train()(**batch).logits[real] - expected).abs().max() > 1e-3


ARCHITECTURES = [
    "llama", "mistral", "qwen2", "qwen3", "qwen3-moe", "gemma", "gemma2", "gemma3", "phi", "phi3", "gpt2", "gpt-neox",
    "olmo2", "granite", "cohere", "starcoder2", "smollm3", "opt", "falcon", "gpt-oss",
]  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_document_is_the_same_beside_others_and_alone(name, training):
    model = routed(name, dtype=torch.float32).train(training)
    documents = rows(*LENGTHS)
    with torch.no_grad():
        alone = [model(input_ids=one[None]).logits[0] for one in documents]
        together = model(**padded(documents, 16)).logits
        for one, other in zip(alone, together, strict=True):
            torch.testing.assert_close(other[: len(one)], one, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["llama", "qwen3", "qwen3-moe", "gemma", "olmo2", "granite", "smollm3"])
def test_the_fast_path_computes_the_same(name):
    model = routed(name, dtype=torch.float32).train()
    documents = rows(*LENGTHS)
    with torch.no_grad():
        plain = [model(input_ids=one[None]).logits[0] for one in documents]
        assert accelerate(model).flattens
        model.train()
        fast = model(**flattened(documents, filler=5)).logits[0].split([*LENGTHS, 5])[:3]
    for one, other in zip(plain, fast, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)


# -- generation


def test_in_evaluation_no_token_depends_on_later_ones():
    model = routed(dtype=torch.float32).eval()
    ids = rows(20)[0][None]
    changed = torch.cat((ids[:, :12], (ids[:, 12:] + 5) % 90), 1)
    with torch.no_grad():
        torch.testing.assert_close(
            model(input_ids=ids).logits[:, :12], model(input_ids=changed).logits[:, :12], rtol=1e-5, atol=1e-5
        )
        model.train()  # the choice of the whole document does
        assert not torch.allclose(model(input_ids=ids).logits[:, :12], model(input_ids=changed).logits[:, :12])


def test_decoding_is_the_forward_pass_of_the_text_so_far():
    model = routed(dtype=torch.float32).eval()
    prompts = rows(9, 5)
    width = max(map(len, prompts))
    ids = torch.stack([pad(one, (width - len(one), 0)) for one in prompts])
    mask = torch.stack([pad(torch.ones_like(one), (width - len(one), 0)) for one in prompts])
    found = model.generate(ids, attention_mask=mask, max_new_tokens=7, do_sample=False, eos_token_id=None)
    for row, one in enumerate(prompts):
        text = one
        for _ in range(7):
            text = torch.cat((text, model(input_ids=text[None]).logits[0, -1].argmax()[None]))
        assert found[row, width - len(one) :].tolist() == text.tolist()


def test_a_cache_is_refused_and_the_decode_loop_leaves_the_model_to_transformers():
    model = routed(dtype=torch.float32).eval()
    assert "routed blocks" in unsupported(model)
    with pytest.raises(ValueError, match="keeps no cache"):
        model(input_ids=rows(5)[0][None], use_cache=True)
    assert model.generation_config.use_cache is False


def test_a_block_that_no_token_passes_is_skipped():
    model = routed(dtype=torch.float64).eval()
    routers_of(model)[0].bias.data.fill_(-1e6)
    plain = tiny("llama", torch.float64).eval()
    plain.model.layers[1].forward = lambda hidden, **_: hidden
    ids = rows(7)[0][None]
    torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits, rtol=1e-12, atol=1e-12)


# -- runs


def losses(folder):
    return RunReader(folder).metrics().values("loss").tolist()


def loaded(folder, **keys):
    config = RunConfig.load({"model_name_or_path": str(folder), "dataset": "llf_demo"} | keys)
    source = resolve_model(str(folder), config)
    return load_model(source, config, plan_device(config)), load_tokenizer(source, config)


@pytest.fixture
def logits_in_memory(monkeypatch):
    """Logits of the trained model as it is written, by its plain forward."""
    kept = []
    original = save_run_result.save_output

    def save_output(model, tokenizer, *rest):
        written = original(model, tokenizer, *rest)
        vars(model).pop("forward", None)
        kept.append(logits(model, tokenizer))
        return written

    monkeypatch.setattr(save_run_result, "save_output", save_output)
    return kept


def test_a_run_is_saved_and_loaded_with_the_same_logits(trained, in_float32, logits_in_memory, tiny_model_dir):
    folder, code = trained(**KEYS, max_steps=8, learning_rate=1e-2, fast_path=False)
    assert code == 0
    model, tokenizer = loaded(folder.output)
    assert read_settings(model.config).json() == {"capacity": 0.5, "layers": [1]}
    (router,) = routers_of(model)
    assert router.weight.abs().max() > 1e-4
    assert torch.equal(logits(model, tokenizer), logits_in_memory[0])

    plain = AutoModelForCausalLM.from_pretrained(folder.output)
    assert not torch.equal(logits(plain, tokenizer), logits_in_memory[0])
    assert restore_routers(plain, folder.output)
    assert torch.equal(logits(plain, tokenizer), logits_in_memory[0])

    card = (folder.output / "README.md").read_text()
    code = (
        card.split("```python\n")[1].split("```")[0].partition("\nmessages")[0].replace('"."', repr(str(folder.output)))
    )
    found = {}
    exec(code.replace('"."', repr(str(folder.output))), found)
    assert torch.equal(logits(found["model"], found["tokenizer"]), logits_in_memory[0])
    assert generate(model, tokenizer, ["What is 1 plus 2?"], max_new_tokens=4) == generate(
        found["model"], tokenizer, ["What is 1 plus 2?"], max_new_tokens=4
    )


@pytest.mark.parametrize("more", [{}, {"packing": True}, {"gradient_checkpointing": True},
                                  {"gradient_checkpointing": True, "use_reentrant_gc": True}])  # fmt: skip
def test_losses_are_those_of_the_plain_path(trained, in_float32, more):
    fast, code = trained(**KEYS, max_steps=5, mod_every=1, **more)
    assert code == 0
    other = {"packing": True} if "packing" in more else {"fast_path": False}
    plain, code = trained(**KEYS, max_steps=5, mod_every=1, **other)
    assert code == 0
    one, two = (RunReader(each).metrics() for each in (fast, plain))
    for name in ("loss", "grad_norm", "routing/loss", "routing/accuracy"):
        assert one.values(name).tolist() == pytest.approx(two.values(name).tolist(), rel=2e-4), name


def test_the_split_into_micro_batches_does_not_matter(trained, in_float32):
    runs = [
        trained(**KEYS, max_steps=4, per_device_train_batch_size=size, gradient_accumulation_steps=8 // size,
                mod_aux_loss_coef=1.0)[0]
        for size in (8, 2)
    ]  # fmt: skip
    one, two = (RunReader(each).metrics() for each in runs)
    for name in ("loss", "grad_norm", "routing/loss"):
        assert one.values(name).tolist() == pytest.approx(two.values(name).tolist(), rel=1e-4), name


def test_the_auxiliary_loss_trains_routers_to_tell_their_choice(trained, in_float32):
    keys = KEYS | {"max_steps": 40, "learning_rate": 1e-2, "save_steps": 100}
    folder, _ = trained(**keys, mod_aux_loss_coef=1.0)
    told = RunReader(folder).metrics()
    assert told.values("routing/accuracy")[0] < 0.6  # all weights are 1 at first
    assert told.values("routing/accuracy")[-1] > 0.9
    assert told.values("routing/loss")[-1] < 0.5 * told.values("routing/loss")[0]
    without, _ = trained(**keys, mod_aux_loss_coef=0.0)
    assert losses(without)[0] == losses(folder)[0]  # the logged loss does not include it
    assert RunReader(without).metrics().values("routing/accuracy")[-1] < 0.9


def test_a_resumed_run_has_the_same_losses_bit_by_bit(trained, make_run, monkeypatch):
    keys = KEYS | {"max_steps": 5, "learning_rate": 1e-2}
    whole, _ = trained(**keys)
    folder = make_run(**keys)
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 2)
        assert run_attempt(folder, 1) == 0
    assert next_attempt(folder) == 0
    assert losses(folder) == losses(whole)
    for name in ("routing/loss", "eval_loss"):
        one, two = (RunReader(each).metrics().values(name).tolist() for each in (folder, whole))
        assert one == two


def test_a_converted_model_is_continued(trained, in_float32, tmp_path):
    first, _ = trained(**KEYS, mod_every=1, max_steps=4, learning_rate=1e-2)
    shutil.copytree(first.output, tmp_path / "converted")
    keys = {"finetuning_type": "full", "model_name_or_path": str(tmp_path / "converted"), "max_steps": 3}
    second, code = trained(**keys, mixture_of_depths="load")
    assert code == 0
    assert json.loads((second.output / "config.json").read_text())[SETTINGS] == {"capacity": 0.5, "layers": [0, 1]}
    assert losses(second)[0] < losses(first)[0]
    before, after = (load_file(one / "model.safetensors") for one in (first.output, second.output))
    assert not torch.equal(before["model.layers.0.mod_router.weight"], after["model.layers.0.mod_router.weight"])
    fresh, code = trained(**keys, mixture_of_depths="load", train_from_scratch=True)
    assert code == 0
    assert losses(fresh)[0] > losses(second)[0]
    for other in ("convert", None):
        refused, code = trained(**keys, mixture_of_depths=other)
        assert code != 0
        assert "was converted to Mixture-of-Depths before" in read_status(refused).reason


def test_freeze_trains_all_routers(trained):
    folder, code = trained(
        **KEYS | {"finetuning_type": "freeze"}, freeze_trainable_layers=1, mod_every=1, max_steps=3, learning_rate=1e-2
    )
    assert code == 0
    state = load_file(folder.output / "model.safetensors")
    assert all(state[f"model.layers.{layer}.mod_router.weight"].abs().max() > 1e-4 for layer in (0, 1))


@pytest.mark.parametrize("stage", ["pt", "kd"])
def test_other_stages_train(trained, tmp_path, tiny_model_dir, stage):
    more = {}
    if stage == "pt":
        (tmp_path / "texts.json").write_text(json.dumps([{"text": f"The number {n} follows."} for n in range(24)]))
        more["dataset"] = str(tmp_path / "texts.json")
    else:
        more["teacher_model"] = str(tiny_model_dir)
    folder, code = trained(**KEYS, stage=stage, max_steps=2, **more)
    assert code == 0, read_status(folder).reason
    assert len(RunReader(folder).metrics().values("routing/loss")) == 2


def test_a_stage_takes_the_loss_of_the_last_forward_pass_alone():
    model = routed(dtype=torch.float32).train()
    config = RunConfig.load({"model_name_or_path": "m", "dataset": "llf_demo"} | KEYS | {"mod_aux_loss_coef": 0.25})
    modifier = MixtureOfDepths(config)
    modifier.apply(model)
    batch = padded(rows(9, 4), 12) | {"labels": padded(rows(9, 4), 12)["input_ids"]}
    for _ in range(2):
        SFT().loss_sum(model, batch)
    extra = modifier.extra_loss()
    total, tokens = extra.measures["routing/loss"]
    assert tokens == 13
    torch.testing.assert_close(extra.total, 0.25 * total)
    assert modifier.extra_loss() is None


# -- bad input


def told(**keys):
    report = validate({"model_name_or_path": "m", "dataset": "llf_demo"} | KEYS | keys)
    return {(problem.severity, problem.key) for problem in (*report.violations, *report.invalid)}


def test_rules():
    assert told() == set()
    assert told(finetuning_type="freeze") == set()
    assert told(mixture_of_depths="load") == {("note", "mod_capacity")}
    assert told(mixture_of_depths=None) == set()
    for method in ("lora", "oft", "prompt"):
        assert ("error", "mixture_of_depths") in told(finetuning_type=method)
    assert ("error", "mixture_of_depths") in told(stage="dpo", dataset="llf_demo_pairs")
    assert ("error", "mixture_of_depths") in told(stage="ppo", reward_model="m")
    assert ("error", "mixture_of_depths") in told(shift_attn=True)
    assert ("error", "mixture_of_depths") in told(
        finetuning_type="freeze", use_llama_pro=True, llama_pro_insert=True, freeze_trainable_layers=1
    )
    assert ("error", "mixture_of_depths") in told(flash_attn="fa2")
    assert ("error", "mixture_of_depths") in told(torch_compile=True)
    assert any(severity == "error" for severity, _ in told(quantization_bit=4))


@pytest.mark.parametrize(
    ("key", "value"),
    [("mod_capacity", 0), ("mod_capacity", 2), ("mod_capacity", -0.5), ("mod_every", 0), ("mod_aux_loss_coef", -1),
     ("mixture_of_depths", "unload")],
)  # fmt: skip
def test_values_out_of_range_are_invalid(key, value):
    assert ("error", key) in told(**{key: value})


def test_the_recipe_of_llama_factory_validates():
    recipe = {  # examples/extras/mod/llama3_full_sft.yaml
        "model_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct", "trust_remote_code": True, "stage": "sft",
        "do_train": True, "finetuning_type": "full", "mixture_of_depths": "convert",
        "dataset": "identity,alpaca_en_demo", "template": "llama3", "cutoff_len": 2048,
        "max_samples": 1000, "preprocessing_num_workers": 16,
        "dataloader_num_workers": 4, "output_dir": "saves/llama3-8b-mod/full/sft", "logging_steps": 10,
        "save_steps": 500, "plot_loss": True, "overwrite_output_dir": True, "save_only_model": False,
        "report_to": "none", "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8,
        "optim": "paged_adamw_8bit", "learning_rate": 1.0e-5, "num_train_epochs": 3.0,
        "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "pure_bf16": True, "ddp_timeout": 180000000,
    }  # fmt: skip
    report = validate(recipe)
    assert report.ok, report.problems


def test_a_model_without_routers_is_not_loaded_and_known_before_the_start(trained, tiny_model_dir):
    keys = KEYS | {"mixture_of_depths": "load"}
    config = RunConfig.load({"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo"} | keys)
    (problem,) = [one for one in name_checks.check_local(config).problems if one.key == "mixture_of_depths"]
    assert "has no routers" in problem.message
    assert problem.fixes[0].changes == {"mixture_of_depths": "convert"}
    with pytest.raises(ModelError, match="has no routers"):
        MixtureOfDepths(config).before_method(tiny("llama"))
    folder, code = trained(**keys)
    assert code != 0
    assert "has no routers" in read_status(folder).reason


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("falcon-alibi", "part of the tokens"),
        ("bloom", "no positions"),
        ("mpt", "no positions"),
        ("mamba", "carry a state"),
        ("lfm2", "carry a state"),
        ("jamba", "carry a state"),
    ],
)
def test_architectures_that_cannot_be_converted_are_refused(name, why):
    model = tiny(name)
    with pytest.raises(ModelError, match=f"cannot be converted to Mixture-of-Depths.*{why}"):
        convert(model, 0.5, 2)
    assert not routers_of(model)
    assert read_settings(model.config) is None


def test_indexed_attention_which_needs_all_tokens_is_refused():
    with pytest.raises(ModelError, match=r"cannot be converted.*chooses among all tokens of an example"):
        convert(AutoModelForCausalLM.from_config(tiny_config("deepseek_v32")), 0.5, 2)


def test_a_model_without_a_list_of_blocks_is_refused():
    model = tiny("llama")
    model.config.num_hidden_layers = 5
    with pytest.raises(ModelError, match="keeps its 5 layers in no list"):
        convert(model, 0.5, 2)


def test_converting_twice_and_routing_no_block_are_refused():
    model = tiny("llama")
    with pytest.raises(ModelError, match="mod_every is 3, and LlamaForCausalLM has 2 blocks"):
        convert(model, 0.5, 3)
    convert(model, 0.5, 2)
    with pytest.raises(ModelError, match="has routers already"):
        convert(model, 0.5, 2)


@pytest.mark.parametrize(
    ("name", "length", "refused"), [("mistral", 5, False), ("mistral", 6, True), ("llama", 6, False)]
)
def test_documents_longer_than_a_window_are_refused_with_the_fast_path(name, length, refused):
    keys = {"model_name_or_path": "m", "dataset": "llf_demo", "cutoff_len": length} | KEYS
    if refused:
        with pytest.raises(ModelError, match="attend to 5 tokens, and cutoff_len is 6"):
            MixtureOfDepths(RunConfig.load(keys)).before_method(tiny(name))
    else:
        MixtureOfDepths(RunConfig.load(keys)).before_method(tiny(name))
    MixtureOfDepths(RunConfig.load(keys | {"fast_path": False})).before_method(tiny(name))


@pytest.fixture
def saved(tmp_path, tiny_model_dir):
    """A converted model in a folder, and its tensors by name."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    convert(model, 0.5, 2)
    shutil.copytree(tiny_model_dir, tmp_path / "saved")
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved", load_file(tmp_path / "saved" / "model.safetensors")


ROUTER = "model.layers.1.mod_router"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda tensors: tensors.pop(f"{ROUTER}.bias"), r"lack model\.layers\.1\.mod_router\.bias"),
        (
            lambda tensors: [tensors.pop(f"{ROUTER}.{one}") for one in ("bias", "weight")],
            "lack the mod_router of layer 1",
        ),
        (lambda tensors: tensors.update({f"{ROUTER}.weight": torch.zeros(1, 3)}), r"has the shape \[1, 3\]"),
        (
            lambda tensors: tensors.update({f"other.{ROUTER}.{one}": torch.zeros(1) for one in ("weight", "bias")}),
            "lack a single list",
        ),
    ],
)
def test_damaged_routers_are_told(saved, change, why):
    folder, tensors = saved
    assert routers_of(loaded(folder)[0])
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=why):
        loaded(folder)


@pytest.mark.parametrize(
    "entry",
    ["convert", {"capacity": 0, "layers": [1]}, {"capacity": 0.5, "layers": []}, {"capacity": 0.5, "layers": [-1]},
     {"capacity": "a", "layers": [1]}, {"capacity": 0.5, "layers": "1"}, {"layers": [1]},
     {"capacity": True, "layers": [1]}, {"capacity": 0.5, "layers": [True]}],
)  # fmt: skip
def test_a_damaged_entry_of_the_config_is_told(saved, entry):
    folder, _ = saved
    config = json.loads((folder / "config.json").read_text()) | {SETTINGS: entry}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="mixture_of_depths in the config of the model is"):
        loaded(folder)


def test_a_layer_that_the_model_does_not_have_is_told(saved):
    folder, tensors = saved
    config = json.loads((folder / "config.json").read_text()) | {SETTINGS: {"capacity": 0.5, "layers": [7]}}
    (folder / "config.json").write_text(json.dumps(config))
    renamed = {name.replace("layers.1.mod_router", "layers.7.mod_router"): one for name, one in tensors.items()}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="names layer 7, counted from 0, and LlamaForCausalLM has 2 layers"):
        loaded(folder)

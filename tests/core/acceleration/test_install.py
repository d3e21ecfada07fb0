"""What is installed in a model, what falls back, and that a wrong formula never is."""

from __future__ import annotations

import copy
import inspect
import pickle

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from llf_core.acceleration.patching import attention_backend
from llf_core.acceleration.patching.causal_head import flatten_probe, forward
from llf_core.acceleration.patching.equivalence import EquivalenceCheck
from llf_core.acceleration.patching.fast_forwards import install as install_forward
from llf_core.acceleration.patching.fast_forwards import linear_forward
from llf_core.acceleration.patching.install import accelerate, parts_of, restore, take_over
from llf_core.acceleration.patching.matching import match_mlp, match_norm, plain_copy
from llf_core.stages.sft import SFT
from tests.core.acceleration.architectures import tiny
from tests.core.acceleration.test_models import assert_trains_alike, batch, pair, plain_loss, with_lora


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("adapted", [False, True])
def test_gradient_checkpointing(reentrant, adapted):
    model = with_lora(tiny("llama")) if adapted else tiny("llama")
    inner = model.get_base_model() if adapted else model
    inner.gradient_checkpointing_enable({"use_reentrant": reentrant})
    inner.enable_input_require_grads()
    fast, plain = pair(model)
    assert_trains_alike(fast, plain)


def test_freeze():
    model = tiny("qwen3")
    model.requires_grad_(requires_grad=False)
    model.model.layers[1].requires_grad_(requires_grad=True)
    fast, plain = pair(model)
    assert_trains_alike(fast, plain)


def test_full_training_under_autocast():
    fast, plain = pair(tiny("gemma2"))
    assert_trains_alike(fast, plain, autocast=torch.bfloat16)


def test_lora_with_patterns_and_modules_to_save():
    options = {
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"down_proj": 3},
        "use_rslora": True,
        "modules_to_save": ["lm_head", "o_proj"],
        "target_modules": ["q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "down_proj"],
        "layers_to_transform": [1],
    }
    fast, plain = pair(with_lora(tiny("llama", tie_word_embeddings=False), **options))
    assert_trains_alike(fast, plain)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True, "target_modules": ["q_proj"]}])
def test_other_kinds_of_lora_fall_back(options):
    model = with_lora(tiny("qwen2"), **options)
    fast, plain = pair(model)
    assert_trains_alike(fast, plain)


def test_dropout_of_lora_is_drawn_as_before():
    fast, plain = pair(with_lora(tiny("qwen2"), lora_dropout=0.3))
    own = copy.deepcopy(fast)
    restore(own)  # PEFT's own forwards, on the same batch

    def loss(model, seed):
        torch.manual_seed(seed)
        return SFT().loss_sum(model, batch()).item()

    assert loss(fast, 1) == loss(fast, 1) != loss(fast, 2)
    assert loss(fast, 1) == pytest.approx(loss(own, 1), rel=1e-6)
    assert_trains_alike(fast.eval(), plain.eval())


@pytest.mark.parametrize("name", ["starcoder2", "llama"])
def test_dropout_of_the_model_itself_stays(name):
    drop = {"attention_dropout": 0.5} | ({"residual_dropout": 0.5} if name == "starcoder2" else {})
    model = tiny(name, **drop).train()
    done = accelerate(model)
    assert "attentions" not in done.notes[0]
    torch.manual_seed(0)
    losses = {SFT().loss_sum(model, batch()).item() for _ in range(3)}
    assert len(losses) == 3
    model.eval()
    assert len({SFT().loss_sum(model, batch()).item() for _ in range(3)}) == 1


def test_adapters_are_looked_at_in_every_forward():
    model = with_lora(tiny("llama"))
    model.add_adapter("other", LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "down_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B.other" in name:
            parameter.data.normal_(0, 0.05, generator=torch.Generator().manual_seed(1))
    fast, plain = pair(model)

    def alike():
        with torch.no_grad():
            loss, expected = SFT().loss_sum(fast, batch()), plain_loss(plain)
        assert abs(loss - expected) / expected < 1e-6
        return float(loss)

    seen = [alike()]
    with fast.disable_adapter(), plain.disable_adapter():
        seen.append(alike())
    for change in (
        lambda each: each.set_adapter("other"),
        lambda each: each.base_model.set_adapter(["default", "other"]),
        lambda each: each.merge_adapter(),
    ):
        change(fast)
        change(plain)
        seen.append(alike())
    assert len(set(seen[:4])) == 4
    assert seen[3] == pytest.approx(seen[4], rel=1e-5)
    with fast.disable_adapter(), plain.disable_adapter():  # merged: PEFT takes it out of the weights
        assert alike() == pytest.approx(seen[1], rel=1e-5)


def test_a_copy_computes_with_its_own_weights():
    model = tiny("llama").train()
    accelerate(model)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        before = SFT().loss_sum(model, batch())
        for parameter in twin.parameters():
            parameter.mul_(0.5)
        assert SFT().loss_sum(model, batch()) == before
        changed = SFT().loss_sum(twin, batch())
        restore(twin)
        twin.set_attn_implementation("sdpa")
        assert abs(changed - plain_loss(twin)) / changed < 1e-6
    assert abs(changed - before) > 1


def test_restored_parts_are_the_models_own():
    model = tiny("qwen3")
    accelerate(model)
    assert "forward" in vars(model.model.layers[0].mlp)
    restore(model)
    assert not any("forward" in vars(module) for module in model.model.modules())


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3-next", "llama4"])
def test_another_process_takes_over_what_was_replaced(name):
    model, other, meta = (with_lora(tiny(name), target_modules=["q_proj", "v_proj"]) for _ in range(3))
    accelerate(model)
    parts = pickle.loads(pickle.dumps(parts_of(model)))
    for one in (other, meta.to("meta")):
        take_over(one, parts)
        assert parts_of(one) == parts
    batch = flatten_probe([torch.arange(3, 9), torch.arange(20, 24)])
    with torch.no_grad():
        logits = [forward(one.eval(), batch, lambda hidden, head: head.logits(hidden)) for one in (model, other)]
    assert torch.equal(*logits)


def test_the_states_of_modules_and_of_randomness_are_left_as_they_were():
    model = tiny("llama").train()
    model.model.layers[1].eval()
    torch.manual_seed(4)
    before, state = [module.training for module in model.modules()], torch.get_rng_state()
    weights = {name: parameter.clone() for name, parameter in model.named_parameters()}
    accelerate(model)
    assert [module.training for module in model.modules()] == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weights[name], parameter) for name, parameter in model.named_parameters())
    assert len(model.model.layers) == 2


def test_attention_that_is_asked_for_stays():
    model = tiny("llama")
    model.set_attn_implementation("eager")
    done = accelerate(model, attention=False)
    assert not done.flattens
    assert model.config._attn_implementation == "eager"
    assert done.notes == (
        "Fast path: 2 MLPs, 5 norms.",
        "Batches are padded: the model's own attention is requested.",
    )


def test_a_saved_config_names_no_attention(tmp_path):
    model = tiny("llama")
    accelerate(model)
    model.save_pretrained(tmp_path)
    assert attention_backend.NAME not in (tmp_path / "config.json").read_text().split('"')


# -- formulas that look like known ones


def changed_method(module_class, old, new):
    """A subclass whose forward has one expression of its code exchanged."""
    import textwrap

    code = textwrap.dedent(inspect.getsource(inspect.unwrap(module_class.forward)))
    assert old in code
    code = code[code.index("def forward") :].replace(old, new)
    names = dict(vars(inspect.getmodule(module_class)))
    exec(code, names)
    return type(module_class.__name__, (module_class,), {"forward": names["forward"]})


IMPOSTORS = [
    ("mlp", "self.act_fn(self.gate_proj(x)) * self.up_proj(x)", "self.act_fn(self.up_proj(x)) * self.gate_proj(x)"),
    ("mlp", "* self.up_proj(x)", "* (self.up_proj(x) + 1)"),
    ("mlp", "self.act_fn(self.gate_proj(x))", "self.act_fn(self.gate_proj(x) * 1.702)"),
    (
        "input_layernorm",
        "torch.rsqrt(variance + self.variance_epsilon)",
        "1 / (variance.sqrt() + self.variance_epsilon)",
    ),
    ("input_layernorm", "hidden_states.pow(2)", "(hidden_states - hidden_states.mean(-1, keepdim=True)).pow(2)"),
    ("self_attn", "self.v_proj(hidden_states)", "self.v_proj(hidden_states * 2)"),
    (
        "self_attn",
        "apply_rotary_pos_emb(query_states, key_states, cos, sin)",
        "apply_rotary_pos_emb(query_states, key_states, sin, cos)",
    ),
    (
        "self_attn",
        "attn_output = self.o_proj(attn_output)",
        "attn_output = self.o_proj(attn_output * torch.sigmoid(attn_output))",
    ),
]


@pytest.mark.parametrize(("part", "old", "new"), IMPOSTORS)
@torch.no_grad()
def test_what_only_looks_like_a_known_part_is_left_alone(part, old, new):
    model = tiny("llama")
    for layer in model.model.layers:
        module = getattr(layer, part)
        module.__class__ = changed_method(type(module), old, new)
    plain = copy.deepcopy(model)
    done = accelerate(model)
    assert "forward" not in vars(getattr(model.model.layers[1], part))
    assert done.flattens
    loss, expected = SFT().loss_sum(model, batch()), plain_loss(plain)
    assert abs(loss - expected) / expected < 1e-6


@torch.no_grad()
def test_norms_whose_large_weights_hide_their_formula_are_told_apart():
    for name, weights in (("gemma", 99.0), ("llama", 100.0)):
        model = tiny(name, torch.bfloat16)
        for module in model.modules():
            if type(module).__name__.endswith("RMSNorm"):
                module.weight.fill_(weights)
        accelerate(model)
        norm = model.model.norm
        norm.weight.fill_(0.5)
        x = torch.ones(1, 1, 64, dtype=torch.bfloat16)
        assert float(norm(x)[0, 0, 0]) == {"gemma": 1.5, "llama": 0.5}[name]


@torch.no_grad()
def test_each_layer_keeps_its_own_scale_and_window():
    model = tiny("gemma2", num_hidden_layers=4)
    model.model.layers[3].self_attn.scaling = 0.5
    plain = copy.deepcopy(model)
    assert accelerate(model).flattens
    loss, expected = SFT().loss_sum(model, batch()), plain_loss(plain)
    assert abs(loss - expected) / expected < 1e-6


@torch.no_grad()
def scale_of(module):
    return 1 / (module.layer_idx + 1)


def test_a_formula_with_the_number_of_its_layer_is_not_taken_for_that_of_the_first():
    model = tiny("llama", num_hidden_layers=3)
    plain = type(model.model.layers[0].mlp)
    # Its own code does not speak of a number, and the first layer's is the plain formula.
    numbered = type("NumberedMLP", (plain,), {"forward": lambda self, x: plain.forward(self, x) * scale_of(self)})
    for number, layer in enumerate(model.model.layers):
        layer.mlp.layer_idx = number
        layer.mlp.__class__ = numbered
    assert_trains_alike(*pair(model))


def test_a_number_that_only_finds_a_cache_does_not_part_layers():
    assert EquivalenceCheck(tiny("llama", num_hidden_layers=3).eval())._layers == ("layers", 1)


def test_a_window_that_only_the_mask_knows_is_refused():
    model = tiny("mistral", sliding_window=1000)  # far longer than what is tried
    for layer in model.model.layers:
        attention = layer.self_attn
        old = 'sliding_window=getattr(self.config, "sliding_window", None),'
        attention.__class__ = changed_method(type(attention), old, "")
    done = accelerate(model)
    assert not done.flattens
    assert "mask tokens by a rule (1000)" in done.why
    assert model.config._attn_implementation == "sdpa"


@torch.no_grad()
def test_layers_that_mix_tokens_outside_of_attention_are_refused():
    model = tiny("llama")

    class Shifted(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(x + 0.3 * torch.nn.functional.pad(x, (0, 0, 1, 0))[:, :-1])

    model.model.layers[1].mlp = Shifted(model.model.layers[1].mlp)
    plain = copy.deepcopy(model)
    done = accelerate(model)
    assert not done.flattens
    assert "computes documents side by side differently from separate ones" in done.why
    ids = torch.tensor([[5, 6, 7, 8]])
    torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.long)])
def test_two_hundred_steps_follow_the_plain_path(dtype):
    fast, plain = pair(with_lora(tiny("llama", dtype)))
    curves = []
    for model in (fast, plain):
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=2e-3, weight_decay=0.0)
        curve = []
        for step in range(200):
            of = batch_of_step(step)
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
                loss = SFT().loss_sum(fast, batch(of)) if model is fast else plain_loss(plain, of)
            optimizer.zero_grad()
            (loss / 20).backward()
            optimizer.step()
            curve.append(float(loss.detach()))
        curves.append(torch.tensor(curve))
    away = (curves[0] - curves[1]).abs() / curves[1]
    assert curves[1][-8:].mean() < 0.5 * curves[1][:8].mean()
    assert away.mean() < (1e-6 if dtype == torch.float32 else 1e-2)
    assert away.max() < (1e-5 if dtype == torch.float32 else 0.1)
    ends = [float(curve[-8:].mean()) for curve in curves]
    assert ends[0] == pytest.approx(ends[1], rel=1e-6 if dtype == torch.float32 else 1e-2)


def batch_of_step(step):
    from tests.core.acceleration.test_models import features

    return features(lengths=(5 + step % 3, 4, 6), seed=step % 8)


def test_whatever_the_trial_of_a_module_raises_leaves_it_as_it_was(monkeypatch):
    from llf_core.acceleration.patching import install

    def fails(*_):
        raise ZeroDivisionError("a formula nobody knew")

    monkeypatch.setattr(install, "match_norm", fails)
    model = tiny("llama").train()
    plain = copy.deepcopy(model)
    done = accelerate(model)
    assert done.notes[0] == "Fast path: batches without padding, 2 MLPs, 2 attentions."
    assert_trains_alike(model, plain)


def test_a_model_that_its_fast_parts_break_stays_as_it_was(monkeypatch):
    from llf_core.acceleration.patching import install

    def breaks(*_):
        def forward(self, x):
            raise AssertionError("a shape nobody knew")

        forward.__module__ = "llf_core.acceleration.patching.fast_forwards"
        return forward

    monkeypatch.setattr(install, "match_norm", breaks)
    model = tiny("llama").train()
    plain = copy.deepcopy(model)
    done = accelerate(model)
    assert done.notes[0] == "Fast path: none, because with it LlamaForCausalLM cannot be run (a shape nobody knew)."
    assert_trains_alike(model, plain)


def test_a_norm_whose_weight_is_no_parameter_is_none_of_ours():
    class Weightless(nn.Module):
        def __init__(self):
            super().__init__()
            self.eps = 1e-6
            self.register_buffer("weight", torch.ones(8), persistent=False)

        def forward(self, x):
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

    assert match_norm(Weightless()) is None


def test_modules_that_return_a_tuple_are_none_of_ours():
    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.eps, self.weight = 1e-6, nn.Parameter(torch.ones(8))

        def forward(self, x):
            return (x,)

    class MLP(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = (nn.Linear(8, 8) for _ in range(3))
            self.act_fn = nn.SiLU()

        def forward(self, x):
            return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x)), None

    with torch.no_grad():
        assert match_mlp(MLP()) is None
        assert match_norm(Norm()) is None


def test_a_model_may_change_what_a_lora_layer_gave_in_place():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.dense = nn.Linear(8, 8)

        def forward(self, x):
            found = self.dense(x)
            found += 1
            return found

    module = get_peft_model(InPlace(), LoraConfig(r=2, target_modules=["dense"]))
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    wanted = module(x)
    install_forward(module.base_model.model.dense, linear_forward)
    found = module(x)
    found.sum().backward()
    torch.testing.assert_close(found, wanted)


def test_a_copy_for_a_test_has_other_weights_in_each_parameter():
    module = nn.LayerNorm(8)  # a weight and a bias of one shape
    one, again = plain_copy(module), plain_copy(module)
    assert not torch.equal(one.weight, one.bias)
    assert torch.equal(one.bias, again.bias)
    assert torch.equal(module.bias, torch.zeros(8))


def test_hidden_states_that_are_no_numbers_or_all_zero():
    broken, empty = tiny("llama"), tiny("llama")
    with torch.no_grad():
        broken.model.layers[0].mlp.up_proj.weight.fill_(torch.nan)
        for parameter in empty.parameters():
            parameter.zero_()
    found = accelerate(broken)
    assert not found.flattens
    assert found.why.endswith("its hidden states are not all finite.")
    assert accelerate(empty).flattens

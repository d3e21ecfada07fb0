"""The objective inside a model's forward: heads of all shapes, PEFT around them, both kinds of batches."""

import copy

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional

from llf_core.acceleration.kernels.cross_entropy import log_probs, nll_sum
from llf_core.acceleration.patching.causal_head import LOGITS, Head, causal_of, forward, forward_hidden, install_head
from llf_core.stages.sft import SFT
from tests.tiny import tiny_llama

SIZES = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
# Class of the config and what sets its head apart.
MODELS = {
    "llama": ("LlamaConfig", {}),
    "llama, tied": ("LlamaConfig", {"tie_word_embeddings": True}),
    "mistral": ("MistralConfig", {}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 8}),
    "gemma": ("GemmaConfig", {"head_dim": 8}),
    "gemma2, soft cap": ("Gemma2Config", {"head_dim": 8, "final_logit_softcapping": 0.5}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 8}),
    "phi, bias": ("PhiConfig", {}),
    "phi3": ("Phi3Config", {}),
    "cohere, scale": ("CohereConfig", {"logit_scale": 0.0625}),
    "granite, divisor": ("GraniteConfig", {"logits_scaling": 8.0}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}),
    "gpt_neox": ("GPTNeoXConfig", {}),
    "gptj, bias": ("GPTJConfig", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4}),
    "opt": ("OPTConfig", {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4}),
    "qwen2_moe": ("Qwen2MoeConfig", {"num_experts": 4, "moe_intermediate_size": 16}),
}  # fmt: skip


SINGLE = ("mixtral", "qwen2_moe")  # their products of experts know no float64


def tiny(name):
    """A random model of a family, in float64 where it can be, and evaluation mode; always the same."""
    kind, more = MODELS[name]
    config = getattr(transformers, kind)(**SIZES, **more)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        model = model if name in SINGLE else model.double()
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)  # biases and norms begin at 0 and 1
    return model


def batch(seed=0):
    """Padded on the right; the first tokens are only read."""
    ids = torch.randint(3, 96, (2, 10), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[1, 7:] = 0
    labels = torch.where(mask == 1, ids, -100)
    labels[:, :3] = -100
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def plain(model, inputs):
    """The second implementation: all logits, PyTorch's loss."""
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten(), reduction="sum")


def gradients(model):
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def assert_same(model, reference, inputs, tolerance=1e-9):
    """Losses and all gradients of `model` by SFT equal those of `reference` by the plain way."""
    expected = plain(reference, inputs)
    expected.backward()
    loss = SFT().loss_sum(model, inputs)
    loss.backward()
    torch.testing.assert_close(loss.double(), expected.double(), rtol=tolerance, atol=0)
    ours, theirs = gradients(model), gradients(reference)
    assert ours.keys() == theirs.keys()
    for name, grad in ours.items():
        scale = float(theirs[name].abs().max())
        torch.testing.assert_close(grad, theirs[name], rtol=0, atol=max(scale, 1e-3) * tolerance, msg=name)


@pytest.mark.parametrize("name", MODELS)
def test_every_head_gives_the_loss_and_gradients_of_all_logits(name):
    model, reference = tiny(name), tiny(name)
    assert install_head(model) is None
    assert_same(model, reference, batch(), 1e-5 if name in SINGLE else 1e-6 if "gemma" in name else 1e-9)


@pytest.mark.parametrize(
    ("name", "scale", "softcap"),
    [
        ("gemma2, soft cap", 1.0, 0.5),
        ("cohere, scale", 0.0625, None),
        ("granite, divisor", 0.125, None),
        ("llama", 1.0, None),
    ],
)
def test_scale_and_soft_cap_are_found(name, scale, softcap):
    model = tiny(name)
    install_head(model)
    head = forward(model, batch(), lambda _, head: head)
    assert (head.scale, head.softcap) == (scale, softcap)
    hidden = forward(model, batch(), lambda hidden, _: hidden)
    inputs = {key: value for key, value in batch().items() if key != "labels"}
    torch.testing.assert_close(head.logits(hidden), model(**inputs).logits)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_soft_cap_far_above_the_logits_is_not_missed_in_any_dtype(dtype):
    model = tiny("gemma2, soft cap").to(dtype)
    model.config.final_logit_softcapping = 30.0
    assert install_head(model) is None
    assert forward(model, batch(), lambda _, head: head).softcap == 30.0


class Shifted(transformers.LlamaForCausalLM):
    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits + 1.0
        return output


class Embedded(transformers.LlamaForCausalLM):
    def forward(self, input_ids=None, **kwargs):
        return super().forward(inputs_embeds=self.model.embed_tokens(input_ids), **kwargs)


class Reshaped(nn.Linear):
    pass


def other_head(kind):
    config = transformers.LlamaConfig(**SIZES)
    model = {"shifted": Shifted, "embedded": Embedded}.get(kind, transformers.LlamaForCausalLM)(config)
    if kind == "class":
        model.lm_head = Reshaped(32, 96, bias=False)
    if kind == "hook":
        model.lm_head.register_forward_hook(lambda *_: None)
    if kind == "lora":
        return get_peft_model(model, LoraConfig(target_modules=["lm_head", "q_proj"], task_type="CAUSAL_LM"))
    return model


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("shifted", "the logits are not those of a linear layer"),
        ("embedded", "the decoder is given no input_ids"),
        ("class", "the output head is a Reshaped"),
        ("hook", "the output head has hooks"),
        ("lora", "the output head is a Linear"),
    ],
)
def test_any_other_head_stays_plain_and_says_why(kind, reason):
    model = other_head(kind).eval()
    reference = copy.deepcopy(model)
    assert reason in install_head(model)
    assert forward(model, batch(), lambda _, head: head) is LOGITS
    assert_same(model, reference, batch(), 1e-5)
    assert "forward" not in causal_of(model).__dict__
    assert "forward" not in causal_of(model).model.__dict__


def test_without_an_objective_the_model_is_what_it_was():
    model, reference = tiny("llama"), tiny("llama")
    install_head(model)
    inputs = batch()
    assert model(**inputs).loss.item() == reference(**inputs).loss.item()
    ids = inputs["input_ids"][:1]
    assert model.generate(ids, max_new_tokens=4).tolist() == reference.generate(ids, max_new_tokens=4).tolist()
    assert model.state_dict().keys() == reference.state_dict().keys()
    assert [name for name, _ in model.named_modules()] == [name for name, _ in reference.named_modules()]


def test_a_copy_runs_its_own_decoder():
    model = tiny("llama")
    install_head(model)
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.data.mul_(1.5)
    assert forward(twin, batch(), lambda _, head: head).weight is twin.lm_head.weight
    expected = twin.model(**{key: value for key, value in batch().items() if key != "labels"}).last_hidden_state
    torch.testing.assert_close(forward(twin, batch(), lambda hidden, _: hidden), expected)


@pytest.mark.parametrize(
    "targets", [{}, {"modules_to_save": ["lm_head"]}, {"modules_to_save": ["embed_tokens", "lm_head"]}]
)
@pytest.mark.parametrize("name", ["llama", "phi, bias"])
def test_peft_around_the_model_and_around_the_head(name, targets):
    def made():
        torch.manual_seed(1)
        wrapped = get_peft_model(tiny(name), LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM", **targets))
        for parameter in wrapped.parameters():
            parameter.data = parameter.data.double() + 0.01 * torch.randn_like(parameter, dtype=torch.float64)
        return wrapped.eval()

    model, reference = made(), made()
    assert install_head(model) is None
    assert_same(model, reference, batch())
    if targets:
        assert any("lm_head" in name for name in gradients(model))
    with model.disable_adapter(), reference.disable_adapter(), torch.no_grad():
        torch.testing.assert_close(SFT().loss_sum(model, batch()), plain(reference, batch()), rtol=1e-9, atol=0)


def test_a_head_that_is_wrapped_later_goes_the_plain_way():
    model = tiny("llama").float()
    install_head(model)
    wrapped = get_peft_model(model, LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM"))
    nn.init.ones_(wrapped.base_model.model.lm_head.lora_B["default"].weight)
    assert forward(wrapped, batch(), lambda _, head: head) is LOGITS
    torch.testing.assert_close(SFT().loss_sum(wrapped, batch()), plain(wrapped, batch()), rtol=1e-5, atol=0)


def test_tied_weights_of_peft_stay_one():
    def made():
        config = LoraConfig(
            target_modules=["q_proj"], task_type="CAUSAL_LM", modules_to_save=["embed_tokens"], ensure_weight_tying=True
        )
        torch.manual_seed(1)
        return get_peft_model(tiny("llama, tied"), config).eval()

    model, reference = made(), made()
    assert install_head(model) is None
    assert_same(model, reference, batch())


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("peft", [True, False])
def test_gradient_checkpointing_of_both_kinds(reentrant, peft):
    def made():
        torch.manual_seed(1)
        model = tiny("llama")
        if peft:
            model = get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
            for parameter in model.parameters():
                parameter.data = parameter.data.double() + 0.01
        return model.train()

    model, reference = made(), made()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    install_head(model)
    assert_same(model, reference, batch())


def test_flattened_documents_give_the_losses_of_padded_ones():
    model = tiny("llama")
    install_head(model)
    padded = batch()
    lengths = padded["attention_mask"].sum(1).tolist()
    rows = [(padded["input_ids"][i, :n], padded["labels"][i, :n]) for i, n in enumerate(lengths)]
    borders = torch.tensor([0, lengths[0], sum(lengths)], dtype=torch.int32)
    flat = {
        "input_ids": torch.cat([ids for ids, _ in rows])[None],
        "labels": torch.cat([labels for _, labels in rows])[None],
        "position_ids": torch.cat([torch.arange(n) for n in lengths])[None],
        "cu_seq_lens_q": borders, "cu_seq_lens_k": borders, "max_length_q": max(lengths), "max_length_k": max(lengths),
    }  # fmt: skip
    torch.testing.assert_close(SFT().loss_sum(model, flat), plain(model, padded), rtol=1e-9, atol=0)


@pytest.mark.parametrize("trained", ["lora", "full"])
def test_autocast_as_the_trainer_wraps_it(trained, tiny_tokenizer):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    def made():
        torch.manual_seed(1)
        model = tiny_llama(tiny_tokenizer)
        if trained == "lora":
            model = get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
        return model.train()

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    try:
        model, reference = made(), made()
        assert install_head(model) is None
        wrapped, other = accelerator.prepare_model(model), accelerator.prepare_model(reference)
        with accelerator.autocast():
            loss = SFT().loss_sum(wrapped, batch())
        with torch.autocast("cpu", torch.bfloat16):
            expected = plain(other, batch())
        loss.backward()
        expected.backward()
        assert loss.dtype == torch.float32
        # The same bfloat16 logits; hidden states of 2-D and 3-D products may differ in their last bit.
        torch.testing.assert_close(loss, expected.float(), rtol=1e-4, atol=0)
        ours, theirs = gradients(model), gradients(reference)
        assert ours.keys() == theirs.keys()
        for name, grad in ours.items():
            assert (grad - theirs[name]).norm() <= 0.02 * theirs[name].norm() + 1e-12, name
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
        assert SFT().loss_sum(model, batch()).item() == pytest.approx(loss.item(), rel=0.02)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def test_log_probs_through_the_same_head():
    model = tiny("llama")
    install_head(model)
    inputs = batch()

    def objective(hidden, head):
        return log_probs(hidden[:, :-1].reshape(-1, 32), head, inputs["input_ids"][:, 1:].reshape(-1))

    expected = torch.log_softmax(
        model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1], -1
    ).gather(2, inputs["input_ids"][:, 1:, None])
    torch.testing.assert_close(forward(model, inputs, objective), expected.flatten(), rtol=1e-9, atol=0)


def test_the_probe_runs_no_layer():
    model = tiny("llama")
    for layer in model.model.layers:
        layer.register_forward_hook(lambda *_: pytest.fail("a layer ran"))
    assert install_head(model) is None


def test_only_learned_rows_meet_the_head(monkeypatch):
    model, inputs = tiny("llama"), batch()
    install_head(model)
    seen = []
    monkeypatch.setattr(
        "llf_core.acceleration.kernels.cross_entropy.cross_entropies",
        lambda rows, *_: seen.append(rows.shape) or torch.zeros(len(rows)),
    )
    with torch.no_grad():
        forward(model, inputs, lambda hidden, head: nll_sum(hidden, head, inputs["labels"]))
    assert seen == [((inputs["labels"] != -100).sum().item(), 32)]


@pytest.fixture
def process_group():
    """This process alone. Two of them are in `tests/core/training/ranks.py`."""
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel_and_accumulation(process_group):
    model, reference = tiny("llama, tied"), tiny("llama, tied")
    install_head(model)
    parallel = nn.parallel.DistributedDataParallel(model)
    for seed in (0, 1):
        plain(reference, batch(seed)).backward()
        with parallel.no_sync() if seed == 0 else torch.enable_grad():
            SFT().loss_sum(parallel, batch(seed)).backward()
    ours, theirs = gradients(model), gradients(reference)
    assert ours.keys() == theirs.keys()
    for name, grad in ours.items():
        torch.testing.assert_close(grad, theirs[name], rtol=1e-8, atol=1e-10, msg=name)


def test_head_by_hand():
    head = Head(torch.tensor([[1.0], [2.0]]), torch.tensor([1.0, 0.0]), 0.5, 3.0)
    # h = 2: 0.5 · (3, 4) = (1.5, 2); 3 · tanh(x / 3)
    assert head.logits(torch.tensor([2.0])).tolist() == pytest.approx([1.3863514, 1.7483473], rel=1e-6)


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_hidden_states_are_those_before_the_head_also_where_it_stays_as_it_is(name):
    model = tiny(name)
    hidden = forward_hidden(model, {"input_ids": torch.arange(3, 9)[None]}, lambda hidden: hidden)
    with torch.no_grad():
        logits = model(input_ids=torch.arange(3, 9)[None]).logits
    torch.testing.assert_close(model.get_output_embeddings()(hidden), logits)

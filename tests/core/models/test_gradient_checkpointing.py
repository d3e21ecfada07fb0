"""Whether activations are computed again, and how far down the backward pass goes."""

import warnings

import pytest
import torch

from llf_core.estimate import Forecast
from llf_core.models import ModelError, load_model, plan_device, resolve_model
from llf_core.models.gradient_checkpointing import choose_checkpointing, enable_checkpointing

GB = 1_000_000_000


def forecast(step):
    return Forecast(base=GB, weights=GB, gradients=0, optimizer=0, activations=step, head=0)


@pytest.fixture
def model(config):
    settings = config()
    return load_model(resolve_model(settings.model.model_name_or_path), settings, plan_device(settings))


@pytest.mark.parametrize(
    ("available", "on", "words"),
    [(5 * GB, False, "off: a step needs about 4.0 GB"), (4 * GB, True, "with it about 1.0 GB."),
     (GB, True, "may not be enough")],
)  # fmt: skip
def test_unset_it_is_on_where_the_forecast_fills_the_memory(config, model, available, on, words):
    chosen = choose_checkpointing(config(), model, forecast(4 * GB), forecast(GB), available)
    assert chosen.on is on
    assert words in chosen.reason


@pytest.mark.parametrize(
    ("keys", "on"),
    [
        ({"gradient_checkpointing": True}, True),
        ({"gradient_checkpointing": False}, False),
        ({"disable_gradient_checkpointing": True}, False),
    ],
)
def test_what_the_config_says_is_done_whatever_is_free(config, model, keys, on):
    for available in (0, 100 * GB):
        chosen = choose_checkpointing(config(**keys), model, forecast(4 * GB), forecast(GB), available)
        assert chosen.on is on
        assert next(iter(keys)) in chosen.reason


def test_a_model_whose_sizes_are_not_known_keeps_its_activations(config, model):
    assert not choose_checkpointing(config(), model, None, None, 0).on


def test_an_architecture_without_it_is_refused_only_where_it_was_asked_for(config, model):
    type(model).supports_gradient_checkpointing, before = False, type(model).supports_gradient_checkpointing
    try:
        assert not choose_checkpointing(config(), model, forecast(4 * GB), forecast(GB), GB).on
        with pytest.raises(ModelError, match="LlamaForCausalLM does not support gradient checkpointing"):
            choose_checkpointing(config(gradient_checkpointing=True), model, forecast(GB), forecast(GB), 9 * GB)
    finally:
        type(model).supports_gradient_checkpointing = before


class Products(torch.utils._python_dispatch.TorchDispatchMode):
    """Shapes of the matrix products that are made while it is entered."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default)
        return func(*args, **(kwargs or {}))


TOP = {"finetuning_type": "freeze", "freeze_trainable_layers": 1}
TOP_LORA = {"finetuning_type": "lora", "lora_target": "q_proj"}
IDS = torch.tensor([[1, 5, 9, 200, 33, 2]])


def backward_of(model):
    """Gradients, and the number of products made in the backward pass."""
    loss = model(input_ids=IDS, labels=IDS, use_cache=False).loss
    with Products() as products:
        loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}, products.count


@pytest.mark.parametrize("form", ["kept", "again", "reentrant"])
def test_the_backward_pass_ends_at_the_first_trained_layer(config, loaded, form):
    counts = {}
    for layers in (1, 2):
        asked = config(finetuning_type="freeze", freeze_trainable_layers=layers, use_reentrant_gc=form == "reentrant")
        _, _, model = loaded(asked)
        if form != "kept":
            enable_checkpointing(model, asked)
        lowest = model.model.layers[0].self_attn.q_proj
        lowest.register_forward_hook(lambda module, _, output: setattr(module, "in_graph", output.requires_grad))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # torch warns where a checkpointed layer gets no gradient
            gradients, counts[layers] = backward_of(model.train())
        assert any("layers.0" in name for name in gradients) is (layers == 2)
        assert lowest.in_graph is (layers == 2)
    # The lower of two equal layers costs as much as the upper one, but for the gradient of its first input.
    head, of_layer = 1, counts[2] - counts[1]
    assert counts[1] - head <= of_layer + 3  # q, k, v: nobody needs the gradient of their input
    assert counts[1] < counts[2]


@pytest.mark.parametrize("reentrant", [False, True])
def test_frozen_layers_are_not_computed_again(config, loaded, reentrant):
    settings = config(**TOP, use_reentrant_gc=reentrant)
    _, _, model = loaded(settings)
    enable_checkpointing(model.train(), settings)
    calls = [0, 0]
    for place, layer in enumerate(model.model.layers):
        layer.self_attn.register_forward_hook(lambda *_, place=place: calls.__setitem__(place, calls[place] + 1))
    model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
    assert calls == [1, 2]


@pytest.mark.parametrize("reentrant", [False, True])
def test_an_adapter_needs_no_gradient_of_the_embedding(config, loaded, reentrant):
    settings = config(**TOP_LORA, use_reentrant_gc=reentrant)
    _, _, model = loaded(settings)
    enable_checkpointing(model.train(), settings)
    embedded = []
    model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: embedded.append(output))
    gradients, _ = backward_of(model)
    assert len(gradients) == 4  # A and B of both layers
    assert embedded[0].requires_grad is reentrant  # the reentrant form knows no other way

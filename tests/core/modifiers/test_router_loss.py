"""Load balancing loss of routers: that of transformers, its gradient in runs, padding, and models without it."""

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from llf_core.acceleration.patching.causal_head import forward
from llf_core.acceleration.patching.install import accelerate
from llf_core.config import RunConfig, name_checks, validate
from llf_core.models import ModelError
from llf_core.modifiers.router_loss import load_balancing_loss, watch_routers
from llf_core.runs import RunReader, read_status
from tests.core.models.every_architecture import save_tiny
from tests.core.models.tiny_configs import tiny_config
from tests.core.modifiers.test_mixture_of_depths import flattened, padded, rows
from tests.core.training.adapted import in_float32
from tests.preference_pairs import pair_rows, pairs

__all__ = ["in_float32", "pair_rows", "pairs"]
KINDS = ("mixtral", "qwen3_moe")
COEFFICIENT = 0.5


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of tiny models with experts, by their type."""
    base = tmp_path_factory.mktemp("experts")
    for kind in KINDS:
        save_tiny(kind, base / kind)
    return {kind: base / kind for kind in KINDS}


@pytest.mark.parametrize("padded_rows", [False, True])
def test_the_loss_is_that_of_transformers(padded_rows):
    logits = tuple(torch.randn(12, 5) * 3 for _ in range(3))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1] * 6]) if padded_rows else None
    real = None if mask is None else mask.flatten().bool()
    expected = load_balancing_loss_func(logits, 5, 2, mask)
    assert float(load_balancing_loss(logits, 2, real)) == pytest.approx(float(expected), rel=1e-6)


def test_it_is_lowest_where_all_experts_get_the_same_share():
    even = torch.eye(4) * 1e-6  # top 1: each expert once
    assert float(load_balancing_loss([even], 1)) == pytest.approx(1, rel=1e-5)
    assert float(load_balancing_loss([torch.eye(4)[:1].repeat(4, 1) * 50], 1)) == pytest.approx(4, rel=1e-5)


def of_transformers(model, ids, mask=None):
    """The auxiliary loss of rows, as transformers computes it."""
    return model(input_ids=ids, attention_mask=mask, output_router_logits=True, use_cache=False).aux_loss


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_filler_have_no_influence(folders, kind):
    model = AutoModelForCausalLM.from_pretrained(folders[kind], dtype=torch.float32).train()
    documents = rows(5, 9, 3)
    batch = padded(documents, 12)
    expected = of_transformers(model, batch["input_ids"], batch["attention_mask"])
    outputs = watch_routers(model)
    for width in (9, 12):
        model(**padded(documents, width))
        loss, tokens = outputs.take_loss()
        assert (float(loss.detach()), int(tokens)) == (pytest.approx(float(expected.detach()), rel=1e-5), 17)
    assert outputs.take_loss() is None
    assert accelerate(model).flattens
    gradients = []
    for filler in (0, 7):
        forward(model, flattened(documents, filler), lambda hidden, head: hidden.sum() * 0)
        loss, tokens = outputs.take_loss()
        assert (float(loss.detach()), int(tokens)) == (pytest.approx(float(expected.detach()), rel=1e-5), 17)
        gradients.append(torch.autograd.grad(loss, model.model.embed_tokens.weight)[0])
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-7)
    with torch.no_grad():
        model(**batch)
    assert outputs.take_loss() is None


@pytest.fixture
def seen(monkeypatch):
    """The examples of the run that is trained."""
    from llf_core.training import load_context

    kept = []
    prepare = load_context.prepare

    def record(*args, **keys):
        found = prepare(*args, **keys)
        kept[:] = list(getattr(found.train, "examples", found.train))
        return found

    monkeypatch.setattr(load_context, "prepare", record)
    return kept


def curve(folder, name):
    return RunReader(folder).metrics().values(name).tolist()


def first_step(folder, examples):
    """Loss, auxiliary loss and gradient norm of one step over all examples, by plain transformers."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    width = max(len(one["input_ids"]) for one in examples)
    batch = padded([torch.tensor(one["input_ids"]) for one in examples], width)
    answer = model(**batch, output_router_logits=True, use_cache=False)
    total, count = 0, 0
    for row, one in enumerate(examples):
        labels = torch.tensor(one["labels"])[1:]
        learned = labels != -100
        logits = answer.logits[row, : len(labels)][learned]
        total = total + torch.nn.functional.cross_entropy(logits, labels[learned], reduction="sum")
        count += int(learned.sum())
    (total / count + COEFFICIENT * answer.aux_loss).backward()
    squares = sum(float(one.grad.pow(2).sum()) for one in model.parameters() if one.grad is not None)
    return float(total.detach() / count), float(answer.aux_loss.detach()), squares**0.5


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("mixtral", {}),
        ("qwen3_moe", {"packing": True, "cutoff_len": 64}),
        ("mixtral", {"gradient_checkpointing": True}),
        ("qwen3_moe", {"fast_path": False}),
    ],
)
def test_a_step_has_the_loss_and_the_gradient_of_transformers(trained, folders, seen, in_float32, kind, more):
    keys = {
        "model_name_or_path": str(folders[kind]), "finetuning_type": "full", "moe_aux_loss_coef": COEFFICIENT,
        "max_steps": 2, "per_device_train_batch_size": 24, "gradient_accumulation_steps": 1, "max_grad_norm": 1e9,
    } | more  # fmt: skip
    folder, code = trained(**keys)
    assert code == 0, read_status(folder).reason
    loss, auxiliary, norm = first_step(folders[kind], seen)
    assert curve(folder, "loss")[0] == pytest.approx(loss, rel=1e-5)  # the logged loss does not include it
    assert curve(folder, "aux_loss")[0] == pytest.approx(auxiliary, rel=1e-5)
    assert curve(folder, "grad_norm")[0] == pytest.approx(norm, rel=1e-4)


def test_micro_batches_count_by_their_tokens(trained, folders, seen, in_float32):
    batch = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 24, "max_steps": 1}
    folder, _ = trained(
        model_name_or_path=str(folders["mixtral"]), finetuning_type="full", moe_aux_loss_coef=COEFFICIENT, **batch
    )
    model = AutoModelForCausalLM.from_pretrained(folders["mixtral"], dtype=torch.float32).train()
    with torch.no_grad():
        each = [
            (float(of_transformers(model, torch.tensor([one["input_ids"]]))), len(one["input_ids"])) for one in seen
        ]
    expected = sum(loss * tokens for loss, tokens in each) / sum(tokens for _, tokens in each)
    assert curve(folder, "aux_loss")[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("changes", [{"finetuning_type": "lora"}, {"stage": "dpo", "finetuning_type": "lora"}])
def test_an_adapter_is_trained_with_it(trained, folders, pairs, changes):
    keys = changes | ({"dataset": str(pairs)} if "stage" in changes else {})
    without, code = trained(model_name_or_path=str(folders["qwen3_moe"]), max_steps=3, **keys)
    assert code == 0, read_status(without).reason
    folder, code = trained(model_name_or_path=str(folders["qwen3_moe"]), max_steps=3, moe_aux_loss_coef=1.0, **keys)
    assert code == 0, read_status(folder).reason
    assert curve(folder, "loss")[0] == curve(without, "loss")[0]
    assert curve(folder, "loss")[2] != curve(without, "loss")[2]
    assert 2 <= curve(folder, "aux_loss")[0] <= 4
    assert "aux_loss" not in RunReader(without).metrics().names


def test_models_without_the_loss_are_refused(tiny_model_dir, trained, tmp_path):
    for kind, why in (("qwen2", "has no routers of experts"), ("glm4_moe", "computes no auxiliary loss")):
        with pytest.raises(ModelError, match=why):
            watch_routers(AutoModelForCausalLM.from_config(tiny_config(kind)))
    config = RunConfig.load(
        {"model_name_or_path": str(tiny_model_dir), "dataset": "llf_demo", "moe_aux_loss_coef": 0.01}
    )
    (problem,) = [one for one in name_checks.check_local(config).problems if one.key == "moe_aux_loss_coef"]
    assert problem.severity == "error"
    assert "has no experts" in problem.message
    folder, code = trained(moe_aux_loss_coef=0.01)
    assert code == 2
    assert "has no experts" in read_status(folder).reason


@pytest.mark.parametrize(
    "changes",
    [
        {"stage": "grpo", "reward_functions": "length"},
        {"finetuning_type": "prefix"},
        {"use_reentrant_gc": True},
        {"torch_compile": True},
    ],
)
def test_what_excludes_it_is_said_before_the_start(changes):
    report = validate({"dataset": "llf_demo", "moe_aux_loss_coef": 0.01} | changes)
    assert [one.severity for one in report.problems if one.key == "moe_aux_loss_coef"] == ["error"]
    off = validate({"dataset": "llf_demo", "moe_aux_loss_coef": 0} | changes)
    assert [one for one in off.problems if one.key == "moe_aux_loss_coef"] == []

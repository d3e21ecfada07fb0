"""DFT, EAFT and ASFT: closed forms in float64, and runs of each."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from llf_core.acceleration.kernels.cross_entropy import nll_sum
from llf_core.acceleration.patching.causal_head import Head
from llf_core.config import RunConfig, validate
from llf_core.config.data import IGNORED
from llf_core.config.declarations.stages.sft import SFTOptions
from llf_core.doctor.rule import RunMetrics
from llf_core.runs import RunReader
from llf_core.stages.sft import dft_weights, eaft_weights, token_weights


def problem(vocab=97, rows=23, width=16):
    """Hidden states, a head and targets in float64, some of which are ignored."""
    generator = torch.Generator().manual_seed(3)
    hidden = torch.randn(rows, width, dtype=torch.float64, generator=generator)
    weight = torch.randn(vocab, width, dtype=torch.float64, generator=generator) * 0.7
    targets = torch.randint(vocab, (rows,), generator=generator)
    targets[::5] = IGNORED
    return hidden, weight, targets


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("name", ["dft", "eaft", "eaft squared"])
def test_loss_and_gradients_are_those_of_the_closed_form(name, softcap):
    hidden, weight, targets = (tensor.requires_grad_(tensor.is_floating_point()) for tensor in problem())
    alpha = 2.0 if name == "eaft squared" else 1.0
    options = SFTOptions(use_dft_loss=name == "dft", use_eaft_loss=name != "dft", eaft_alpha=alpha)
    head = Head(weight, scale=0.8, softcap=softcap)
    logits = head.logits(hidden)[targets != IGNORED]
    each = functional.cross_entropy(logits, targets[targets != IGNORED], reduction="none")
    with torch.no_grad():
        if name == "dft":
            weights = torch.exp(-each)
        else:
            likely = torch.sort(torch.softmax(logits, -1), descending=True).values[:, :20]
            likely = likely / likely.sum(-1, keepdim=True)
            weights = (-(likely * likely.log()).sum(-1) / 3.0) ** alpha
    expected = (weights * each).sum()
    noted = []
    loss = nll_sum(hidden, head, targets, 0.0, lambda *seen: noted.append(seen), token_weights(options))
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    for ours, theirs in zip(gradients(loss, hidden, weight), gradients(expected, hidden, weight), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(noted[0][1], (weights * each).detach(), rtol=1e-12, atol=0)
    with torch.no_grad():
        assert nll_sum(hidden, head, targets, weights=token_weights(options)).item() == pytest.approx(expected.item())


def test_weights_by_hand():
    log_probs = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3]], dtype=torch.float64).log()
    costs = -log_probs[:, 0]
    torch.testing.assert_close(dft_weights(log_probs, costs), torch.tensor([0.5, 1 / 3], dtype=torch.float64))
    expected = torch.tensor([1.5 * math.log(2) / 3, math.log(3) / 3], dtype=torch.float64)
    torch.testing.assert_close(eaft_weights(log_probs, costs, 1.0), expected)
    torch.testing.assert_close(eaft_weights(log_probs, costs, 0.0), torch.ones(2, dtype=torch.float64))


def test_tokens_that_a_model_excludes_add_nothing_to_the_entropy():
    alone, two = torch.full((2, 30), -math.inf)
    alone[4], two[7], two[9] = 0.0, -math.log(2), -math.log(2)
    weights = eaft_weights(torch.stack([alone, two]), torch.zeros(2), 1.0)
    torch.testing.assert_close(weights, torch.tensor([0.0, math.log(2) / 3]))


def test_without_a_switch_there_are_no_weights():
    assert token_weights(SFTOptions()) is None


def values(folder, name="loss"):
    return RunReader(folder).metrics().values(name)


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Computes in float32, whatever is faster here."""
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 0.5)


@pytest.mark.parametrize("switch", ["use_dft_loss", "use_eaft_loss"])
def test_the_plain_likelihood_is_logged_beside_it(trained, switch):
    changes = {"max_steps": 4, "val_size": 4, "eval_steps": 2, "eval_strategy": "steps"}
    plain, _ = trained(**changes)
    folder, code = trained(**changes, **{switch: True})
    assert code == 0
    assert values(folder, "sft_loss")[0] == pytest.approx(values(plain)[0], rel=1e-5)
    assert (values(folder) < values(folder, "sft_loss")).all()
    assert (values(folder, "eval_loss") < values(folder, "eval_sft_loss")).all()


@pytest.mark.parametrize("method", ["lora", "full"])
def test_asft_begins_as_dft_and_is_held_to_the_model_before(trained, method):
    changes = {"finetuning_type": method, "max_steps": 6, "learning_rate": 1e-2}
    dft, _ = trained(use_dft_loss=True, **changes)
    held, code = trained(use_asft_loss=True, asft_alpha=0.5, **changes)
    assert code == 0
    assert values(held, "reference_kl")[0] == pytest.approx(0, abs=1e-6)
    assert values(held)[0] == pytest.approx(values(dft)[0], rel=1e-5)
    kl = values(held, "reference_kl")
    assert kl[-1] > 1e-4
    # alpha times the KL is a part of the loss: the rest is the DFT loss, which is at most 1/e for a token.
    assert (values(held) - 0.5 * kl < 1 / math.e).all()
    free, _ = trained(use_asft_loss=True, asft_alpha=0.0, **changes)
    np.testing.assert_array_equal(values(free), values(dft))


def test_asft_equals_the_plain_formula_after_a_step(trained, tiny_model_dir):
    """Another reference than the model itself, so that the KL counts from the first step on."""
    import shutil

    from transformers import AutoModelForCausalLM

    other = tiny_model_dir.parent / "asft-reference"
    if not other.exists():
        shutil.copytree(tiny_model_dir, other)
        model = AutoModelForCausalLM.from_pretrained(other)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)
        model.save_pretrained(other)
    from llf_core.data import prepare
    from llf_core.models import load_tokenizer, resolve_model
    from llf_core.runs.metric_columns import ExampleLosses

    folder, _ = trained(use_asft_loss=True, asft_alpha=0.3, ref_model=str(other), max_steps=1)
    config = RunConfig.load(folder.config)
    data = prepare(config, load_tokenizer(resolve_model(str(tiny_model_dir), config), config)).train
    policy, reference = (AutoModelForCausalLM.from_pretrained(path).double() for path in (tiny_model_dir, other))
    noted = ExampleLosses(folder)
    noted.refresh()
    costs = noted.at(1)
    assert costs
    total, tokens = 0.0, 0
    for cost in costs:
        row = data[[one["number"] for one in data].index(cost.number)]
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"][1:])
        learned = labels != IGNORED
        with torch.no_grad():
            mine, theirs = (
                torch.log_softmax(model(input_ids=ids).logits[0, :-1][learned], -1) for model in (policy, reference)
            )
        nll = -mine.gather(1, labels[learned][:, None])[:, 0]
        kl = (theirs.exp() * (theirs - mine)).sum(-1)
        each = (torch.exp(-nll) * nll + 0.3 * kl).sum().item()
        total, tokens = total + each, tokens + int(learned.sum())
        assert cost.last * int(learned.sum()) == pytest.approx(each, rel=1e-4)
    assert values(folder)[0] == pytest.approx(total / tokens, rel=1e-4)


def problems(**changes):
    report = validate({"model_name_or_path": "smollm2-135m-instruct", "dataset": "llf_demo"} | changes)
    return [(problem.severity, problem.key, problem.message) for problem in report.violations]


def test_what_cannot_be_combined_is_told_before_the_start():
    both = problems(use_dft_loss=True, use_eaft_loss=True)
    assert both[0][:2] == ("error", "use_dft_loss")
    assert "use_dft_loss and use_eaft_loss" in both[0][2]
    assert problems(use_dft_loss=True, label_smoothing_factor=0.1)[0][:2] == ("error", "label_smoothing_factor")
    assert problems(ref_model="other")[0][:2] == ("note", "ref_model")
    assert problems(use_asft_loss=True) == []


def test_the_doctor_reads_the_likelihood():
    steps = np.arange(5)
    series = {"loss": (steps, np.full(5, 0.1)), "sft_loss": (steps, np.full(5, 2.0))}
    assert RunMetrics(series, config={"use_dft_loss": True}).likelihood()[1].tolist() == [2.0] * 5
    assert RunMetrics(series, config={}).likelihood()[1].tolist() == [0.1] * 5
    assert RunMetrics(series, config={"stage": "kd"}).likelihood()[1].tolist() == [0.1] * 5

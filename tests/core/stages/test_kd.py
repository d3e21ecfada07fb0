"""Distillation as a run: it comes nearer to its teacher; its loss is the mean over tokens of a plain formula."""

import shutil

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM

from llf_core.runs import RunReader
from tests.tiny import swap_two_tokens, tiny_llama


@pytest.fixture(autouse=True)
def _exact(monkeypatch):
    """Computes in float32, whatever is faster here."""
    monkeypatch.setattr("llf_core.models.device.bf16_speedup", lambda threads: 0.5)


@pytest.fixture(scope="module")
def teacher(tiny_tokenizer, tmp_path_factory):
    """A model of the same vocabulary with other weights."""
    folder = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(11)
    model = tiny_llama(tiny_tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


def values(folder, name="loss"):
    return RunReader(folder).metrics().values(name)


@pytest.mark.parametrize("kd_beta", [0.0, 0.5, 1.0])
def test_it_comes_nearer_to_its_teacher(trained, teacher, kd_beta):
    folder, code = trained(
        stage="kd", teacher_model=teacher, kd_alpha=1.0, kd_beta=kd_beta, finetuning_type="full", max_steps=15,
        learning_rate=5e-3, lr_scheduler_type="constant",
    )  # fmt: skip
    assert code == 0
    losses = values(folder)
    assert losses[-3:].mean() < 0.7 * losses[:3].mean()
    np.testing.assert_allclose(values(folder, "kd_loss"), losses, rtol=1e-5)


def test_a_teacher_that_is_the_student_has_nothing_to_teach(trained, tiny_model_dir):
    folder, _ = trained(stage="kd", teacher_model=str(tiny_model_dir), kd_alpha=0.5)
    assert values(folder, "kd_loss")[0] == pytest.approx(0, abs=1e-5)
    assert values(folder)[0] == pytest.approx(values(folder, "sft_loss")[0] / 2, rel=1e-5)


def test_the_first_loss_is_the_plain_formula(trained, teacher, tiny_model_dir):
    changes = {"stage": "kd", "teacher_model": teacher, "kd_alpha": 0.3, "kd_temperature": 2.0, "max_steps": 1}
    fast, _ = trained(**changes)
    plain, _ = trained(**changes, fast_path=False)
    np.testing.assert_allclose(values(fast), values(plain), rtol=1e-5)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llf_core.config import RunConfig
    from llf_core.data import prepare

    config = RunConfig.load(fast.config)
    data = prepare(config, AutoTokenizer.from_pretrained(tiny_model_dir)).train
    student, wise = (AutoModelForCausalLM.from_pretrained(path).double() for path in (tiny_model_dir, teacher))
    # The first step's four examples are not known here: those of all are a mean that no four need to have. So each
    # example's own cost is looked up in what the run has noted of its step.
    from llf_core.runs.metric_columns import ExampleLosses

    noted = ExampleLosses(fast)
    noted.refresh()
    assert len(noted.at(1)) == 4
    for cost in noted.at(1):
        row = data[[one["number"] for one in data].index(cost.number)]
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"][1:])
        mine, theirs = (model(input_ids=ids).logits[0, :-1][labels != -100] for model in (student, wise))
        nll = functional.cross_entropy(mine, labels[labels != -100], reduction="sum")
        kl = functional.kl_div(
            (mine / 2).log_softmax(-1), (theirs / 2).log_softmax(-1), reduction="sum", log_target=True
        )
        assert cost.last == pytest.approx(float(0.7 * nll + 0.3 * 4 * kl) / int((labels != -100).sum()), rel=1e-4)


def test_kd_without_a_teacher_is_refused(make_run):
    from llf_core.config import ConfigError

    with pytest.raises(ConfigError, match="needs a teacher model, and none is set"):
        make_run(stage="kd")


def test_a_teacher_with_other_tokens_is_refused_though_it_has_as_many(trained, tmp_path, tiny_model_dir):
    other = tmp_path / "other"
    shutil.copytree(tiny_model_dir, other)
    assert trained(stage="kd", teacher_model=str(other), max_steps=1)[1] == 0
    swap_two_tokens(other)
    folder, code = trained(stage="kd", teacher_model=str(other))
    assert code == 2
    assert "has a different tokenizer than" in RunReader(folder).status().reason


def test_a_student_with_random_weights_learns_from_the_stored_ones_of_its_teacher(trained, teacher, monkeypatch):
    from llf_core.stages import kd

    loaded = []
    load = kd.load_auxiliary
    monkeypatch.setattr(kd, "load_auxiliary", lambda *arguments: loaded.append(load(*arguments)) or loaded[0])
    _, code = trained(
        stage="kd", teacher_model=teacher, finetuning_type="full", train_from_scratch=True, max_steps=1
    )  # fmt: skip
    assert code == 0
    stored = AutoModelForCausalLM.from_pretrained(teacher).state_dict()
    read = loaded[0].state_dict()
    assert all(torch.equal(read[name], stored[name]) for name in stored)


def test_rows_that_pad_the_head_of_a_teacher_change_nothing(trained, tmp_path, teacher):
    model = AutoModelForCausalLM.from_pretrained(teacher)
    model.resize_token_embeddings(model.config.vocab_size + 64, mean_resizing=False)
    shutil.copytree(teacher, tmp_path / "padded")
    model.save_pretrained(tmp_path / "padded")
    runs = [trained(stage="kd", teacher_model=str(where), kd_alpha=0.7, max_steps=3) for where in
            (teacher, tmp_path / "padded")]  # fmt: skip
    assert [code for _, code in runs] == [0, 0]
    plain, padded = (RunReader(folder).metrics().values("loss") for folder, _ in runs)
    assert padded.tolist() == pytest.approx(plain.tolist(), rel=1e-5, abs=1e-7)

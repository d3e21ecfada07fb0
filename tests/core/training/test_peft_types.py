"""Every adapter of the installed PEFT through `finetuning_type: peft`: trained, reloaded and merged, or refused."""

import sys

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from llf_core.config import validate
from llf_core.config.declarations.methods.peft import FIRST_CLASS, UNSUITED
from llf_core.config.peft_tuners import tuner_names
from llf_core.runs import read_status
from llf_core.training import session
from tests.core.training.adapted import answer_loss, logits
from tests.core.training.test_session import losses, next_attempt, stop_at

pytestmark = pytest.mark.usefixtures("in_float32")
# what does not fit a model of hidden size 64 by PEFT's own defaults, or has none
OPTIONS = {
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 2},
    "C3A": {"block_size": 16},
    "CARTRIDGE": {"num_virtual_tokens": 4},
    "CPT": {"cpt_token_ids": [5, 6, 7], "cpt_mask": [1, 1, 1], "cpt_tokens_type_mask": [1, 2, 4]},
    "GRALORA": {"r": 4, "gralora_k": 2},
    "PREFIX_TUNING": {"num_virtual_tokens": 4},
    "PROMPT_TUNING": {"num_virtual_tokens": 4},
    "P_TUNING": {"num_virtual_tokens": 4},
    "ROAD": {"group_size": 16},
    "SHADOW": {"shadow_dropout": 0.0},
    "SHIRA": {"r": 4},
    "TRAINABLE_TOKENS": {"token_indices": [5, 6, 7, 8, 9]},
    "VBLORA": {"vector_length": 16, "num_vectors": 16},
    "WAVEFT": {"n_frequency": 64},
}
NOT_INSTALLED = {"ADAMSS": "scikit-learn"}
REFUSED = UNSUITED.keys() | FIRST_CLASS.keys()
UNMERGED = {"ADAPTION_PROMPT", "CARTRIDGE", "CPT", "LILY", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING", "SHADOW"}
WITH_BIAS = {"BEFT"}
"""Types that PEFT merges into a layer with a bias only; those of a Llama have none."""
SLOW = {"SHADOW"}
"""Types whose second network the fast path does not know."""
SLICE = {"HRA", "LN_TUNING", "P_TUNING", "TRAINABLE_TOKENS"}
RATES = {"IA3": 0.3, "LN_TUNING": 0.1, "UNILORA": 0.3, "VERA": 0.3, "ADAPTION_PROMPT": 0.3, "CPT": 0.1}
TYPES = [
    pytest.param(name, marks=[] if name in SLICE else pytest.mark.long)
    for name in tuner_names()
    if name not in REFUSED | NOT_INSTALLED.keys()
]


@pytest.mark.parametrize("name", TYPES)
def test_it_trains_resumes_reloads_and_merges(
    name,
    trained,
    make_run,
    monkeypatch,
    logits_at_the_end,
    tiny_model_dir,
):
    keys = {"finetuning_type": "peft", "peft_type": name, "peft_options": OPTIONS.get(name, {})}
    keys |= {"fast_path": name not in SLOW, "max_steps": 3, "save_steps": 2, "learning_rate": RATES.get(name, 0.03)}
    whole, code = trained(**keys)
    assert code == 0, read_status(whole).reason

    halves = make_run(**keys)
    with monkeypatch.context() as patch:
        stop_at(patch, halves, 2)
        assert session.run_attempt(halves, 1) == 0
    assert next_attempt(halves) == 0, read_status(halves).reason
    assert losses(halves) == losses(whole)
    first, second = (load_file(run.output / "adapter_model.safetensors") for run in (whole, halves))
    assert all(torch.equal(first[key], second[key]) for key in first | second)

    tokenizer = AutoTokenizer.from_pretrained(whole.output)
    base, under = (AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32).eval() for _ in range(2))
    model = PeftModel.from_pretrained(under, whole.output)
    found = logits(model, tokenizer)
    assert torch.equal(found, logits_at_the_end[0])
    assert answer_loss(model, tokenizer) < answer_loss(base, tokenizer)
    if name not in UNMERGED | WITH_BIAS:
        torch.testing.assert_close(logits(model.merge_and_unload(), tokenizer), found, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_what_cannot_be_trained_is_refused_with_a_reason(name):
    report = validate({"dataset": "llf_demo", "finetuning_type": "peft", "peft_type": name})
    (problem,) = [one for one in report.problems if one.severity == "error"]
    assert problem.key == "peft_type"
    assert problem.fixes
    assert len(problem.message) > 60


@pytest.mark.parametrize("name", NOT_INSTALLED)
def test_a_package_that_is_missing_is_named(name, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)  # an import of it fails
    folder, code = trained(finetuning_type="peft", peft_type=name, max_steps=1)
    assert code == 2
    assert f"pip install {NOT_INSTALLED[name]}" in read_status(folder).reason

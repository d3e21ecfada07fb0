"""References: the model before its first step is the same one, whenever and however it is asked."""

import json
import math
import pickle
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import OPTConfig, OPTForCausalLM

from llf_core.runs import Checkpoints, RunReader, home
from llf_core.stages.kto import MismatchedResponses
from llf_core.stages.reference_logprobs import AugmentedDataset, ReferenceColumn, without_dropout
from tests.core.stages.curves import curve, stop_and_resume
from tests.tiny import swap_two_tokens


@pytest.fixture
def begun(trained, data_file):
    """The adapter of a short run with a high rate, so that it differs from its base."""
    folder, code = trained(learning_rate=3e-2, dataset=str(data_file), max_steps=6)
    assert code == 0
    return str(folder.output)


@pytest.mark.parametrize("kind", ["full", "freeze", "new adapter", "same adapter", "quantized"])
def test_in_half_precision_the_policy_equals_its_reference_at_first_whenever_that_is_asked(trained, pairs, begun, kind):
    """Whatever part is trained is kept in float32, and the reference must be no coarser."""
    changes = {
        "full": {"finetuning_type": "full"},
        "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
        "new adapter": {"adapter_name_or_path": begun, "create_new_adapter": True},
        "same adapter": {"adapter_name_or_path": begun},
        "quantized": {"adapter_name_or_path": begun, "quantization_bit": 4},
    }[kind]
    found = []
    for once in (True, False):
        folder, code = trained(
            stage="dpo", dataset=pairs, bf16=True, precompute_ref_log_probs=once, max_steps=3, **changes
        )
        assert code == 0, RunReader(folder).status().reason
        found.append(curve(folder))
        assert found[-1][0] == pytest.approx(math.log(2), abs=1e-6)
    np.testing.assert_allclose(found[0], found[1], rtol=2e-3)


def test_a_twin_is_never_saved_and_a_resumed_run_has_the_same_one(trained, make_run, pairs, begun):
    same = {
        "stage": "dpo", "dataset": pairs, "adapter_name_or_path": begun, "precompute_ref_log_probs": False,
        "learning_rate": 3e-3,
    }  # fmt: skip
    whole, code = trained(**same)
    assert code == 0
    half = make_run(**same)
    stop_and_resume(half, whole)
    for saved in (whole.output, Checkpoints(whole).latest()):
        assert (
            load_file(saved / "adapter_model.safetensors").keys()
            == load_file(f"{begun}/adapter_model.safetensors").keys()
        )
        assert not [one for one in saved.iterdir() if one.is_dir()]


def test_a_quantized_reference_keeps_the_adapter_that_the_run_begins_with(trained, pairs, begun, tiny_model_dir):
    first = []
    for changes in ({"ref_model_quantization_bit": 8}, {"ref_model": str(tiny_model_dir)}):
        folder, code = trained(stage="dpo", dataset=pairs, adapter_name_or_path=begun, max_steps=1, **changes)
        assert code == 0, RunReader(folder).status().reason
        first.append(abs(curve(folder)[0] - math.log(2)))
    assert first[0] < 0.005  # as near as 8 bits are
    assert first[1] > 0.05  # the base alone


def test_answers_to_other_questions_are_asked_anew_where_they_are_cut_elsewhere(trained, tmp_path, capfd):
    path = tmp_path / "judged.json"
    long = "What is one plus one? " * 8
    rows = [
        {"instruction": f"{i} {long}" if i % 2 else f"{i}?", "output": "No." if i % 2 else long, "kto_tag": i % 2 == 0}
        for i in range(12)
    ]
    path.write_text(json.dumps(rows))
    same = {"stage": "kto", "dataset": str(path), "max_steps": 6, "per_device_train_batch_size": 4}
    found: list[tuple[bool, float]] = []
    cutoff = 1024
    for _ in range(3):
        capfd.readouterr()
        folder, code = trained(cutoff_len=cutoff, **same)
        assert code == 0
        (data,) = [event for event in RunReader(folder).events() if event["type"] == "data"]
        assert data["truncated"] == 0  # what is cut is a question with the answer to another one
        cutoff = round(1.2 * data["tokens"] / len(rows))
        found.append(("Loaded the cached" in capfd.readouterr().out, curve(folder, "kl")[0]))
    assert [known for known, _ in found] == [False, False, True]
    assert [kl for _, kl in found] == pytest.approx([0.0] * 3, abs=1e-4)


def test_a_torn_table_is_made_again(trained, pairs, capfd):
    first, _ = trained(stage="dpo", dataset=pairs)
    (kept,) = (home() / "cache" / "reference").glob("*.npy")
    whole = kept.read_bytes()
    for torn in (b"", whole[:40], whole[:-8]):
        kept.write_bytes(torn)
        capfd.readouterr()
        again, code = trained(stage="dpo", dataset=pairs)
        assert code == 0
        assert "Computed the reference log-probabilities of 16 examples" in capfd.readouterr().out
        assert curve(again) == curve(first)
        assert kept.read_bytes() == whole


def test_what_is_added_to_examples_reaches_the_processes_of_a_loader():
    rows = [{"input_ids": [n, 5, n], "labels": [-100, -100, n]} for n in range(4)]
    examples = AugmentedDataset(
        AugmentedDataset(rows, MismatchedResponses(rows, 8)), ReferenceColumn(np.arange(8.0).reshape(4, 2))
    )
    again = pickle.loads(pickle.dumps(examples))
    assert str(again[2]) == str(examples[2])
    assert examples[2]["other_ids"] == [2, 5, 1]


def test_the_answer_of_another_question_is_that_of_another_question():
    rows = [{"input_ids": [q, a], "labels": [-100, a]} for q, a in ((1, 10), (2, 20), (2, 21), (2, 22), (3, 30))]
    others = MismatchedResponses(rows, 8)
    assert [others(place)["other_ids"][-1] for place in range(5)] == [30, 10, 10, 10, 22]
    alone = MismatchedResponses(rows[1:4], 8)
    assert [alone(place)["other_ids"][-1] for place in range(3)] == [22, 20, 21]  # there is no other question


def test_dropout_is_off_wherever_a_model_keeps_its_share():
    torch.manual_seed(0)
    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=30, hidden_size=16, ffn_dim=32, num_hidden_layers=2, num_attention_heads=2, dropout=0.3,
            word_embed_proj_dim=16, max_position_embeddings=32,
        )
    ).train()  # fmt: skip
    ids = torch.arange(2, 12)[None]

    def twice():
        with torch.no_grad():
            return [model(input_ids=ids).logits for _ in range(2)]

    assert not torch.equal(*twice())
    without_dropout(model)
    assert torch.equal(*twice())
    assert not any(isinstance(one, nn.Dropout) and one.p for one in model.modules())


def test_a_reference_with_other_tokens_is_refused(trained, pairs, tmp_path, tiny_model_dir):
    other = tmp_path / "other"
    shutil.copytree(tiny_model_dir, other)
    swap_two_tokens(other)
    folder, code = trained(stage="dpo", dataset=pairs, ref_model=str(other))
    assert code == 2
    assert "of ref_model has a different tokenizer than" in RunReader(folder).status().reason

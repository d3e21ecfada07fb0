"""A reward model gives the same scores in whatever form it was saved, by itself and beside other adapters."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, LlamaForCausalLM

from llf_core.acceleration.patching.install import accelerate
from llf_core.config import RunConfig
from llf_core.models import ModelError
from llf_core.models import device as devices
from llf_core.models.reward_model_files import load_reward_model
from tests.core.stages.llama_factory.same_model import save_model

GOLDENS = Path(__file__).parents[1] / "stages" / "llama_factory"
TALKS = [
    [{"role": "user", "content": "What is the capital of France?"}, {"role": "assistant", "content": "It is Paris."}],
    [{"role": "user", "content": "How do plants make their food?"}, {"role": "assistant", "content": "No."}],
    [
        {"role": "user", "content": "one two three"},
        {"role": "assistant", "content": "four five six seven"},
        {"role": "user", "content": "and?"},
        {"role": "assistant", "content": "the sea, the ship, the light of the lighthouse"},
    ],
]


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Every model computes in float32."""
    monkeypatch.setattr(devices, "bf16_speedup", lambda threads: 0.5)


def disturbed(model):
    """With weights that are not what they are at first."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if "lora_B" in name or "score" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


def by_transformers(model, tokenizer):
    """The scores of a plain classifier, one conversation at a time."""
    with torch.no_grad():
        return [
            model(**tokenizer.apply_chat_template(talk, return_tensors="pt", return_dict=True)).logits.item()
            for talk in TALKS
        ]


@pytest.fixture
def classifier(tiny_model_dir):
    """A base as transformers makes a classifier of it."""
    return AutoModelForSequenceClassification.from_pretrained(tiny_model_dir, num_labels=1)


@pytest.fixture
def adapter(classifier, tiny_model_dir, tiny_tokenizer, tmp_path):
    """An adapter of PEFT's own making, and its scores."""
    settings = LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj", "down_proj"])
    model = disturbed(get_peft_model(classifier, settings))
    model.save_pretrained(tmp_path / "adapter")
    tiny_tokenizer.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", by_transformers(model, tiny_tokenizer)


def test_a_classifier_of_its_own(classifier, tiny_tokenizer, tmp_path):
    disturbed(classifier).save_pretrained(tmp_path / "whole")
    tiny_tokenizer.save_pretrained(tmp_path / "whole")
    scorer = load_reward_model(str(tmp_path / "whole"))
    expected = by_transformers(classifier, tiny_tokenizer)
    assert scorer.scores(TALKS) == pytest.approx(expected, rel=1e-5)
    assert scorer.scores(TALKS, batch_size=1) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("fast", [False, True])
def test_an_adapter_by_itself_and_beside_another(adapter, tiny_model_dir, fast):
    folder, expected = adapter
    assert load_reward_model(str(folder)).scores(TALKS) == pytest.approx(expected, rel=1e-5)

    policy = get_peft_model(
        LlamaForCausalLM.from_pretrained(tiny_model_dir), LoraConfig(task_type="CAUSAL_LM", r=2, lora_dropout=0.5)
    )
    disturbed(policy).train()
    ids = torch.arange(5, 15)[None]
    if fast:
        assert accelerate(policy).flattens
    logits = policy.eval()(input_ids=ids).logits
    policy.train()
    trained = {name for name, parameter in policy.named_parameters() if parameter.requires_grad}
    scorer = load_reward_model(str(folder), shared_model=policy)
    assert scorer.scores(TALKS) == pytest.approx(expected, rel=1e-5)
    assert policy.active_adapter == "default"
    assert policy.training
    assert {name for name, parameter in policy.named_parameters() if parameter.requires_grad} == trained
    assert torch.equal(policy.eval()(input_ids=ids).logits, logits)


def test_a_value_head_of_the_policy_stays_its_own(adapter, tiny_model_dir):
    """Two heads on one base: the policy's `score` is trained, the reward's lies beside."""
    folder, expected = adapter
    causal = LlamaForCausalLM.from_pretrained(tiny_model_dir)
    causal.score = torch.nn.Linear(64, 1, bias=False)
    policy = get_peft_model(causal, LoraConfig(task_type="CAUSAL_LM", r=2, modules_to_save=["score"]))
    value = causal.score.weight.clone()
    scorer = load_reward_model(str(folder), shared_model=policy)
    assert scorer.scores(TALKS) == pytest.approx(expected, rel=1e-5)
    assert torch.equal(causal.score.weight, value)
    assert causal.score.weight.requires_grad


def test_tokens_may_be_padded_on_either_side(adapter):
    folder, expected = adapter
    scorer = load_reward_model(str(folder))
    rows = [scorer.tokens(talk) for talk in TALKS]
    longest = max(map(len, rows))
    for left in (True, False):

        def padded(row, value, left=left):
            space = [value] * (longest - len(row))
            return space + row if left else row + space

        ids = torch.tensor([padded(row, 7) for row in rows])
        mask = torch.tensor([padded([1] * len(row), 0) for row in rows])
        assert scorer.rewards(ids, mask).tolist() == pytest.approx(expected, rel=1e-5)


def test_what_llama_factory_saved_scores_as_there(tmp_path):
    """`rm_adapter` and the scores were made by LLaMA-Factory 0.9.5, see `make_rm_goldens.py`."""
    save_model(tmp_path / "model")
    adapter = tmp_path / "adapter"
    shutil.copytree(GOLDENS / "rm_adapter", adapter)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = str(tmp_path / "model")
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    wanted = json.loads((GOLDENS / "rm.json").read_text())["scores"]
    assert load_reward_model(str(adapter)).scores(list(wanted)) == pytest.approx(list(wanted.values()), rel=1e-5)

    merged = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(tmp_path / "model"), adapter).merge_and_unload()
    merged.save_pretrained(tmp_path / "model")
    shutil.copy(GOLDENS / "rm_adapter" / "value_head.safetensors", tmp_path / "model")
    found = load_reward_model(str(tmp_path / "model")).scores(list(wanted))
    assert found == pytest.approx(list(wanted.values()), rel=1e-4)
    (adapter / "value_head.safetensors").write_bytes(bytes(9))
    with pytest.raises(ModelError, match=r"value_head.safetensors.* Copy or download the model again"):
        load_reward_model(str(adapter))


def test_a_score_that_is_no_number_is_refused(adapter):
    scorer = load_reward_model(str(adapter[0]))
    with torch.no_grad():
        scorer.head.weight[0, 0] = float("nan")
    with pytest.raises(ModelError, match=r"the lighthouse.* the score nan\. Expected a finite number"):
        scorer.scores(TALKS)


def test_a_text_without_tokens_is_refused(adapter):
    with pytest.raises(ModelError, match=r"has no tokens\. Expected a text that is not empty"):
        load_reward_model(str(adapter[0])).scores(["Why?", ""])


def test_what_the_tokenizer_refuses_is_no_fault_of_the_template(adapter):
    scorer = load_reward_model(str(adapter[0]))
    with pytest.raises(TypeError):
        scorer.scores([[{"role": "user", "content": "half of a pair: \ud83d"}]])
    scorer.tokenizer.chat_template = "{{ '' }}"
    with pytest.raises(ModelError, match=r"has no tokens\. Expected a text that is not empty"):
        scorer.scores(TALKS)


@pytest.mark.parametrize("template", ["{{ raise_exception('no system') }}", "{{ 1 / 0 }}", "{{ messages[7].x }}", "{{"])
def test_a_template_that_refuses_a_conversation_ends_with_a_sentence(adapter, template):
    folder = Path(adapter[0])
    scorer = load_reward_model(str(folder))
    scorer.tokenizer.chat_template = template
    scorer.tokenizer.save_pretrained(folder)
    again = load_reward_model(str(folder))  # without knowing how its conversations end
    assert again.ignored_token_id is None
    assert len(again.scores(["Why?"])) == 1
    with pytest.raises(ModelError, match="The chat template of the reward model refuses a conversation: "):
        again.scores(TALKS)


def test_the_files_of_a_whole_one_are_checked_before_they_are_loaded(classifier, tiny_tokenizer, tmp_path):
    classifier.save_pretrained(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"vocab_size": 10**12}))
    with pytest.raises(ModelError, match=r"cannot belong to these weights: vocab_size is 1,000,000,000,000"):
        load_reward_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(settings))
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"only as pickle .*allow_pickle: true"):
        load_reward_model(str(tmp_path))


def test_what_is_none_is_refused(adapter, tiny_model_dir, classifier, tiny_tokenizer, tmp_path):
    with pytest.raises(ModelError, match="No reward model at /nowhere"):
        load_reward_model("/nowhere")
    with pytest.raises(ModelError, match="no reward head"):
        load_reward_model(str(tiny_model_dir))
    policy = get_peft_model(LlamaForCausalLM.from_pretrained(tiny_model_dir), LoraConfig(task_type="CAUSAL_LM", r=2))
    policy.save_pretrained(tmp_path / "speaks")
    with pytest.raises(ModelError, match="speaks is not a reward model"):
        load_reward_model(str(tmp_path / "speaks"))
    (tmp_path / "speaks" / "adapter_model.safetensors").unlink()
    (tmp_path / "speaks" / "adapter_model.bin").write_bytes(b"no pickle")
    with pytest.raises(ModelError, match=r"only as pickle .*Set allow_pickle: true"):
        load_reward_model(str(tmp_path / "speaks"))
    allowed = RunConfig.load({"dataset": "llf_demo", "use_cpu": True, "allow_pickle": True})
    with pytest.raises(ModelError, match=r"weights of the adapter .*speaks are damaged"):
        load_reward_model(str(tmp_path / "speaks"), allowed)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "config.json").write_text('{"architectures": 3}')
    with pytest.raises(ModelError, match="odd is not a reward model"):
        load_reward_model(str(tmp_path / "odd"))
    save_file({"v_head.summary.weight": torch.ones(1)}, tmp_path / "odd" / "value_head.safetensors")
    (tmp_path / "odd" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"a reward head of the shape \[1\]"):
        load_reward_model(str(tmp_path / "odd"))
    classifier.save_pretrained(tmp_path / "whole")
    with pytest.raises(ModelError, match="a whole model, so it cannot be loaded as an adapter"):
        load_reward_model(str(tmp_path / "whole"), shared_model=policy)
    two = AutoModelForSequenceClassification.from_pretrained(tiny_model_dir, num_labels=2)
    two.save_pretrained(tmp_path / "two")
    tiny_tokenizer.save_pretrained(tmp_path / "two")
    with pytest.raises(ModelError, match="a classifier with 2 labels"):
        load_reward_model(str(tmp_path / "two"))
    save_model(tmp_path / "other")
    other = get_peft_model(LlamaForCausalLM.from_pretrained(tmp_path / "other"), LoraConfig(task_type="CAUSAL_LM", r=2))
    with pytest.raises(ModelError, match="does not fit its base"):
        load_reward_model(str(adapter[0]), shared_model=other)

"""One model in four roles computes what four models compute."""

from __future__ import annotations

import copy
import json
import shutil

import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict
from transformers import AutoModelForCausalLM

from llf_core.models import ModelError
from llf_core.stages.completion_scores import SampledCompletion
from llf_core.stages.ppo.batch import answer_batch
from llf_core.stages.ppo.stage import PPO
from llf_core.stages.reference_policy import add_frozen, use_adapter
from tests.core.stages.ppo.conftest import disturbed
from tests.tiny import tiny_llama

PROMPTS = [[5, 9, 30, 41], [7, 8], [11, 12, 13, 14, 15, 16, 17]]
ANSWERS = [[20, 21, 22], [25], [30, 31, 32, 33, 34]]
COMPLETIONS = [SampledCompletion(prompt, answer) for prompt, answer in zip(PROMPTS, ANSWERS, strict=True)]


def by_hand(model, ids, prompt):
    """Log-probabilities of an answer's tokens from all logits in float64."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0].double()
    targets = torch.tensor(ids[1:])
    return logits[:-1].log_softmax(-1)[torch.arange(len(targets)), targets][len(prompt) - 1 :].tolist()


def scores(stage, written=COMPLETIONS):
    return [one.total for one in stage.rollout_worker.score(written, 0)]


@pytest.fixture
def closing(tiny_tokenizer):
    """What the template writes after an answer: the very last of these is where a reward model was trained to score."""
    ids = tiny_tokenizer("<|im_end|>\n", add_special_tokens=False)["input_ids"]
    said = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
    assert tiny_tokenizer.apply_chat_template(said, return_dict=False)[-len(ids) :] == ids
    return ids


def judged(judge, closing, prompts=PROMPTS, answers=ANSWERS):
    """Scores of whole conversations by transformers' own classifier."""
    with torch.no_grad():
        return [
            judge(input_ids=torch.tensor([[*p, *a, *closing]])).logits.item()
            for p, a in zip(prompts, answers, strict=True)
        ]


@pytest.mark.parametrize("fast_path", [True, False])
def test_shared_and_separate_models_say_the_same(
    make_context, tiny_model_dir, reward_adapter, classifier, closing, fast_path
):
    found = {}
    for models in ("shared", "separate"):
        context = make_context(
            reward_model_type="lora", reward_model=str(reward_adapter), ppo_models=models, fast_path=fast_path
        )
        stage = PPO(context)
        assert set(stage.ppo_models.models) == (
            {"policy"} if models == "shared" else {"policy", "reference", "reward", "value"}
        )
        disturbed(context.model).train()  # a policy that has learned something
        outputs = stage.rollout_worker.compute_outputs(COMPLETIONS)
        found[models] = outputs.log_probs, outputs.reference, outputs.entropies, torch.tensor(scores(stage))
        assert context.model.active_adapter == "default"
        assert context.model.training
    for shared, separate in zip(found["shared"], found["separate"], strict=True):
        torch.testing.assert_close(shared, separate, rtol=1e-5, atol=1e-6)

    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    expected = [one for p, a in zip(PROMPTS, ANSWERS, strict=True) for one in by_hand(base, [*p, *a], p)]
    assert found["shared"][1].tolist() == pytest.approx(expected, rel=1e-5)
    assert not torch.allclose(found["shared"][0], found["shared"][1], atol=1e-2)

    judge = PeftModel.from_pretrained(copy.deepcopy(classifier), str(reward_adapter)).eval()
    assert found["shared"][3].tolist() == pytest.approx(judged(judge, closing), rel=1e-4)


def test_a_reward_adapter_is_put_on_the_base_that_it_was_made_for(
    make_context, make_run, reward_adapter, classifier, closing, tiny_tokenizer, tmp_path
):
    from llf_core.training.session import run_attempt

    folder = make_run(max_steps=2)
    assert run_attempt(folder, 1) == 0
    judge = PeftModel.from_pretrained(copy.deepcopy(classifier), str(reward_adapter)).eval()
    expected = pytest.approx(judged(judge, closing), rel=1e-4)
    reward = {"reward_model_type": "lora", "reward_model": str(reward_adapter)}
    merged = {"adapter_name_or_path": str(folder.output), "create_new_adapter": True}
    for models in ("shared", "separate"):
        stage = PPO(make_context(**reward, **merged, ppo_models=models))
        assert "reward" in stage.ppo_models.models
        assert scores(stage) == expected
    stage = PPO(make_context(**reward, adapter_name_or_path=str(folder.output)))  # which is trained further, not merged
    assert set(stage.ppo_models.models) == {"policy"}
    assert scores(stage) == expected

    policy = tiny_llama(tiny_tokenizer, seed=3)
    policy.save_pretrained(tmp_path / "policy")
    tiny_tokenizer.save_pretrained(tmp_path / "policy")
    for models in ("shared", "separate"):
        stage = PPO(make_context(**reward, model_name_or_path=str(tmp_path / "policy"), ppo_models=models))
        assert "reward" in stage.ppo_models.models
        assert scores(stage) == expected


def test_a_base_that_another_path_leads_to_is_the_same(make_context, reward_adapter, tiny_model_dir, tmp_path):
    (tmp_path / "link").symlink_to(tiny_model_dir)
    shutil.copytree(reward_adapter, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(tmp_path / "link")}))
    stage = PPO(make_context(reward_model_type="lora", reward_model=str(tmp_path / "adapter")))
    assert set(stage.ppo_models.models) == {"policy"}


def test_a_reward_adapter_whose_base_is_gone_is_refused_unless_it_only_lies_elsewhere(
    make_context, reward_adapter, tiny_model_dir, tmp_path
):
    shutil.copytree(reward_adapter, tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    for base in (f"/gone/{tiny_model_dir.name}", "/gone/other"):
        settings["base_model_name_or_path"] = base
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
        context = make_context(reward_model_type="lora", reward_model=str(tmp_path / "adapter"))
        if base.endswith("other"):
            with pytest.raises(ModelError, match="is an adapter of /gone/other, not of"):
                PPO(context)
        else:
            assert set(PPO(context).ppo_models.models) == {"policy"}


def test_an_answer_is_scored_where_its_reward_model_was_trained_to_score(make_context, reward_adapter, tiny_tokenizer):
    from llf_core.models.reward_model_files import load_reward_model

    context = make_context(reward_model_type="lora", reward_model=str(reward_adapter), ppo_models="separate")
    stage = PPO(context)
    question, words = {"role": "user", "content": "What is 2 plus 3?"}, "It is 5."
    prompt = tiny_tokenizer.apply_chat_template([question], add_generation_prompt=True, return_dict=False)
    answer = tiny_tokenizer(words, add_special_tokens=False)["input_ids"]
    end = tiny_tokenizer.convert_tokens_to_ids("<|im_end|>")
    ended, cut = scores(stage, [SampledCompletion(prompt, [*answer, end]), SampledCompletion(prompt, answer)])
    scorer = load_reward_model(str(reward_adapter), context.config)
    (expected,) = scorer.scores([[question, {"role": "assistant", "content": words}]])
    assert ended == pytest.approx(expected, rel=1e-4)
    assert cut == pytest.approx(expected, rel=1e-4)


def test_a_whole_reward_model_scores_as_transformers_does(make_context, classifier, tiny_tokenizer, closing, tmp_path):
    classifier.save_pretrained(tmp_path / "whole")
    tiny_tokenizer.save_pretrained(tmp_path / "whole")
    stage = PPO(make_context(reward_model_type="full", reward_model=str(tmp_path / "whole"), ppo_models="separate"))
    assert scores(stage) == pytest.approx(judged(classifier, closing), rel=1e-4)
    # the value model begins as the reward model: at an answer's last token it says the score
    begun = stage.ppo_models.value.head.linear.weight
    assert torch.equal(begun, classifier.score.weight)
    own = dict(stage.ppo_models.value.model.get_base_model().named_parameters())
    theirs = dict(classifier.named_parameters())
    assert torch.equal(
        own["model.layers.0.self_attn.q_proj.base_layer.weight"], theirs["model.layers.0.self_attn.q_proj.weight"]
    )


def test_values_of_a_separate_model_begin_as_the_rewards(make_context, reward_adapter, classifier):
    stage = PPO(make_context(reward_model_type="lora", reward_model=str(reward_adapter), ppo_models="separate"))
    longer = [SampledCompletion(one.prompt, [*one.answer, 3]) for one in COMPLETIONS]
    values = stage.rollout_worker.compute_outputs(longer).values
    # the value before the last token is read where the answer without it ends
    ends = torch.tensor([len(one.answer) for one in longer]).cumsum(0) - 1
    judge = PeftModel.from_pretrained(copy.deepcopy(classifier), str(reward_adapter)).eval()
    assert values[ends].tolist() == pytest.approx(judged(judge, []), rel=1e-4)


def test_adapters_of_the_policy_change_no_reward_model(make_context, make_run, reward_adapter, tiny_model_dir):
    from llf_core.training.session import run_attempt

    reward = {"reward_model_type": "full", "reward_model": str(tiny_model_dir), "ppo_models": "separate"}
    reward |= {"reward_model_adapters": [str(reward_adapter)]}
    expected = scores(PPO(make_context(**reward)))
    folder = make_run(max_steps=2)
    assert run_attempt(folder, 1) == 0
    for new in (False, True):
        stage = PPO(make_context(**reward, adapter_name_or_path=str(folder.output), create_new_adapter=new))
        assert scores(stage) == expected


def test_values_of_a_shared_model_begin_at_0(make_context):
    stage = PPO(make_context())
    assert not stage.rollout_worker.compute_outputs(COMPLETIONS).values.any()


def test_a_resumed_adapter_is_its_own_reference(make_context, make_run, trained, tmp_path):
    from llf_core.training.session import run_attempt

    folder = make_run(max_steps=4)
    assert run_attempt(folder, 1) == 0
    stage = PPO(make_context(adapter_name_or_path=str(folder.output)))
    assert set(stage.ppo_models.models) == {"policy"}
    begun = stage.rollout_worker.compute_outputs(COMPLETIONS)
    assert torch.equal(begun.log_probs, begun.reference)
    disturbed(stage.context.model)
    moved = stage.rollout_worker.compute_outputs(COMPLETIONS)
    assert torch.equal(moved.reference, begun.reference)
    assert not torch.allclose(moved.log_probs, begun.reference, atol=1e-2)


def test_temperature_is_part_of_the_policy(make_context, tiny_model_dir):
    stage = PPO(make_context(temperature=0.7))
    outputs = stage.rollout_worker.compute_outputs(COMPLETIONS)
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    expected, spread = [], []
    for prompt, answer in zip(PROMPTS, ANSWERS, strict=True):
        with torch.no_grad():
            logits = base(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1].double() / 0.7
        expected += logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)].tolist()
        spread += torch.distributions.Categorical(logits=logits).entropy().tolist()
    assert outputs.log_probs.tolist() == pytest.approx(expected, rel=1e-5)
    assert outputs.reference.tolist() == pytest.approx(expected, rel=1e-5)
    assert outputs.entropies.tolist() == pytest.approx(spread, rel=1e-5)


def test_an_adapter_worn_for_a_while_leaves_no_trace(make_context, tiny_tokenizer):
    model = make_context().model
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    settings = copy.deepcopy(model.peft_config["default"])
    weights = {name: torch.randn_like(one) for name, one in get_peft_model_state_dict(model).items()}
    add_frozen(model, "other", settings, weights)
    batch = answer_batch(PROMPTS, ANSWERS, tiny_tokenizer, flatten=False)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    plain = model(**inputs).logits
    for name in ("other", None):
        with use_adapter(model, name), torch.no_grad():
            worn = model(**inputs).logits
        assert torch.equal(worn, plain) == (name is None)  # a new adapter adds nothing yet
        now = {name: parameter.requires_grad for name, parameter in model.named_parameters() if ".other." not in name}
        assert now == before
    assert not any(p.requires_grad for name, p in model.named_parameters() if ".other." in name)


def test_what_is_beside_the_policy_is_in_no_file_of_it(make_context, reward_adapter, tmp_path):
    context = make_context(reward_model_type="lora", reward_model=str(reward_adapter), ppo_models="separate")
    PPO(context)
    trained = {name for name, parameter in context.model.named_parameters() if parameter.requires_grad}
    assert any(name.startswith("llf_value.inner.head") for name in trained)
    assert any("llf_value.inner.model" in name and "lora_A" in name for name in trained)
    assert not any("llf_value" in name for name in context.model.state_dict())
    context.model.save_pretrained(tmp_path / "saved")
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "README.md",
    }

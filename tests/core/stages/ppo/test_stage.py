"""Phases, their loss and their checkpoints, on a tiny real Llama."""

from __future__ import annotations

import copy
import json
import math
import re

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llf_core.config import validate
from llf_core.redaction.redact_text import URLS_VARIABLE
from llf_core.rewards import Reward, WeightedSum
from llf_core.runs import Checkpoints, RunReader, read_status, send_request, status, writer
from llf_core.runs.trust import sign_run
from llf_core.stages.base.context import StopTraining
from llf_core.stages.completion_scores import SampledCompletion, Score, check_finite
from llf_core.stages.ppo import models as models_module
from llf_core.stages.ppo import rollout
from llf_core.stages.ppo.stage import PPO
from llf_core.training.metrics_callback import MetricsCallback
from llf_core.training.session import run_attempt
from tests.core.stages.ppo.conftest import QUESTIONS, disturbed
from tests.core.stages.ppo.endpoint import Endpoint


def column(folder, name):
    """Step -> value as hex, so that equal means equal to the last bit."""
    columns = RunReader(folder).metrics()
    return dict(zip(columns.steps(name).tolist(), [float(v).hex() for v in columns.values(name)], strict=True))


def events(folder, kind):
    return [event for event in RunReader(folder).events() if event["type"] == kind]


def next_attempt(folder):
    """What `Run.resume` does before it starts a trainer."""
    attempt = read_status(folder).attempt + 1
    status.begin_attempt(folder, attempt)
    return run_attempt(folder, attempt)


def stop_at(monkeypatch, step):
    """Has a run told to stop when step `step` has been made."""
    original = MetricsCallback.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == step:
            send_request(self._folder, "stop", by="test")
        original(self, args, state, control, **kwargs)

    monkeypatch.setattr(MetricsCallback, "on_step_end", on_step_end)


# -- the loss ------------------------------------------------------------------------------------------------
def slow_loss(model, stage, numbers):
    """The sum of PPO's losses of some answers of a rollout, written a second time: one answer at a time, all logits."""
    kept, total = stage.rollout, 0.0
    starts = [0, *torch.tensor([len(answer) for answer in kept.answers]).cumsum(0).tolist()]
    head = stage.ppo_models.value.linear
    for number in numbers:
        prompt, answer = kept.prompts[number], kept.answers[number]
        found = model(input_ids=torch.tensor([[*prompt, *answer]]), output_hidden_states=True)
        for place, token in enumerate(answer):
            at, of = len(prompt) + place - 1, starts[number] + place
            log_prob = found.logits[0, at].log_softmax(-1)[token]
            ratio = torch.exp(log_prob - kept.old_log_probs[of])
            gain = kept.advantages[of]
            total = total - torch.min(ratio * gain, torch.clamp(ratio, 0.8, 1.2) * gain)
            value = found.hidden_states[-1][0, at] @ head.weight[0] + head.bias[0]
            old, wanted = kept.old_values[of], kept.returns[of]
            near = old + torch.clamp(value - old, -0.2, 0.2)
            total = total + 0.1 * 0.5 * torch.max((value - wanted) ** 2, (near - wanted) ** 2)
    return total


@pytest.mark.parametrize("fast_path", [True, False])
def test_the_gradient_is_that_of_a_plain_implementation(make_context, tiny_model_dir, tmp_path, fast_path):
    stage = PPO(make_context(fast_path=fast_path))
    (batch, _) = stage.batches([{}, {}])
    policy = disturbed(stage.context.model).train()  # what has moved since the answers were written
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        stage.ppo_models.value.linear.weight.copy_(torch.randn(1, 64, generator=generator) * 0.1)
    loss = stage.loss_sum(policy, batch)
    loss.backward()
    policy.save_pretrained(tmp_path / "adapter")
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model_dir), str(tmp_path / "adapter"), is_trainable=True
    )
    fast = {name: p.grad for name, p in policy.named_parameters() if p.grad is not None}
    head = {name: fast.pop(name) for name in list(fast) if "llf_value" in name}
    stage.ppo_models.value.zero_grad()
    numbers = stage.plan.minibatch(4, 0, 0)[:2]
    slow = slow_loss(plain, stage, numbers)
    slow.backward()
    assert loss.item() == pytest.approx(slow.item(), rel=1e-5)
    assert fast.keys() == {name for name, p in plain.named_parameters() if p.grad is not None}
    for name, parameter in plain.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(fast[name], parameter.grad, rtol=1e-3, atol=1e-6)
    for name, parameter in stage.ppo_models.value.named_parameters():
        torch.testing.assert_close(head[f"llf_value.inner.{name}"], parameter.grad, rtol=1e-4, atol=1e-6)
    stage.measures.commit()
    told = stage.measures.take()
    assert 0 < told["clip_fraction"][0] < told["clip_fraction"][1] == len(batch["targets"])


def test_a_batch_in_parts_has_the_same_loss(make_context):
    from llf_core.data.collate import split_batch

    for fast_path in (True, False):
        stage = PPO(make_context(fast_path=fast_path, per_device_train_batch_size=4, gradient_accumulation_steps=1))
        (batch,) = stage.batches([{}])
        disturbed(stage.context.model)
        parts = split_batch(batch, 3)
        assert len(parts) == 3
        whole = stage.loss_sum(stage.context.model.train(), batch).item()
        assert sum(stage.loss_sum(stage.context.model, part).item() for part in parts) == pytest.approx(whole, rel=1e-5)
        assert sum(int(stage.count(part)) for part in parts) == int(stage.count(batch))


# -- a phase -------------------------------------------------------------------------------------------------
def test_what_a_phase_learns_from_is_its_scores_less_the_kl(make_context, endpoint):
    stage = PPO(make_context(ppo_gamma=1.0, ppo_lam=1.0))
    stage.batches([{}, {}])
    kept = stage.rollout
    assert len(kept) == 4
    texts = endpoint.asked[0]["messages"] + endpoint.asked[1]["messages"]
    scores = [sum(letter.isalpha() for letter in text.rpartition("assistant\n")[2]) for text in texts]
    starts = torch.tensor([len(answer) for answer in kept.answers]).cumsum(0) - torch.tensor([6, 6, 6, 6])
    # a new policy is its own reference, its values are 0: each token's return is the score
    assert kept.returns[starts].tolist() == scores
    mean, deviation = kept.returns.mean(), kept.returns.std()
    torch.testing.assert_close(kept.advantages, (kept.returns - mean) / deviation, rtol=1e-5, atol=1e-6)
    told = stage.measures.take()
    assert told["reward"] == (float(sum(scores)), 4.0)
    assert told["kl"][0] == pytest.approx(0, abs=1e-5)
    assert told["response_length"] == (24.0, 4.0)
    shown = RunReader(stage.context.folder).samples()
    assert [one["reward"] for one in shown] == scores
    assert all(one["kind"] == "completion" and one["step"] == 0 for one in shown)
    assert "What is" in shown[0]["prompt"]


def test_answers_do_not_depend_on_how_many_are_written_at_once(make_context):
    found = []
    for size in (1, 3, 4):
        stage = PPO(make_context())
        stage.rollout_worker.sizes["write"] = size
        stage.batches([{}, {}])
        found.append(stage.rollout.answers)
    assert found[0] == found[1] == found[2]
    assert len({tuple(answer) for answer in found[0]}) == 4


@pytest.mark.parametrize("fast_path", [True, False])
def test_a_long_prompt_takes_nothing_from_the_answers_to_others(make_context, fast_path):
    stage = PPO(make_context(max_new_tokens=0, max_length=40, fast_path=fast_path))
    prompts = [list(range(5, 5 + length)) for length in (10, 38, 60, 25)]
    limits = [30, 2, 1, 15]
    answers = stage.rollout_worker.generate(prompts, 3, 0)
    ends = stage._ends()
    for answer, limit in zip(answers, limits, strict=True):
        assert len(answer) == limit or (len(answer) < limit and answer[-1] in ends)
    assert len(answers[0]) > 2
    stage.rollout_worker.sizes["write"] = 1
    assert stage.rollout_worker.generate(prompts, 3, 0) == answers


def test_memory_that_does_not_suffice_halves_the_work(make_context, monkeypatch):
    stage, original, asked = PPO(make_context()), rollout.continuations, []

    def short_of_memory(model, tokenizer, prompts, **kwargs):
        asked.append(len(prompts))
        if len(prompts) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return original(model, tokenizer, prompts, **kwargs)

    plenty = PPO(make_context())
    plenty.batches([{}, {}])
    monkeypatch.setattr(rollout, "continuations", short_of_memory)
    stage.batches([{}, {}])
    assert asked == [4, 2, 2]
    assert stage.rollout.answers == plenty.rollout.answers
    assert stage.state()["sizes"]["write"] == 2


def test_answers_that_take_their_time_tell_how_many_there_are(make_context, monkeypatch):
    monkeypatch.setattr(writer, "INTERVAL_SECONDS", 0.0)
    stage = PPO(make_context())
    stage.batches([{}, {}])
    told = [event for event in events(stage.context.folder, "progress") if event["what"] != "data"]
    assert {event["step"] for event in told} == {0}
    assert [event["rows"] for event in told if event["what"] == "score"] == [2, 4]
    written = [event["rows"] for event in told if event["what"] == "rollout"]
    assert (written[0], written[-1]) == (0, 4)
    assert len(written) == sum(map(len, stage.rollout.answers))


@pytest.mark.parametrize("whitened", [True, False])
def test_score_normalisation_and_whitened_rewards(make_context, whitened):
    stage = PPO(make_context(ppo_score_norm=True, ppo_whiten_rewards=whitened, ppo_lam=1.0))
    stage.batches([{}, {}])
    raw = torch.tensor([one["reward"] for one in RunReader(stage.context.folder).samples()], dtype=torch.float64)
    assert stage.moments.count == len(raw) == 4
    assert stage.moments.mean == pytest.approx(raw.mean().item())
    # a new policy is its own reference and its values are 0: an answer earns its score, at its last token
    earned = torch.zeros(4, 6, dtype=torch.float64)
    earned[:, -1] = (raw - raw.mean()) / raw.std()
    if whitened:
        earned = (earned - earned.mean()) / earned.std() + earned.mean()
        assert earned.std().item() == pytest.approx(1)
    returns = earned.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(stage.rollout.returns.view(4, 6).double(), returns, rtol=1e-4, atol=1e-5)


# -- how long a run is ---------------------------------------------------------------------------------------
def test_an_epoch_answers_every_prompt_once_and_learns_from_it_ppo_epochs_times(trained, endpoint):
    folder, code = trained(max_steps=None, num_train_epochs=2, ppo_buffer_size=2, ppo_epochs=2)
    assert code == 0
    # 16 prompts, 8 a phase: 4 phases of 2 · 2 steps
    assert read_status(folder).step == 16
    asked = [text.partition("What is ")[2][:8] for one in endpoint.asked for text in one["messages"]]
    wanted = sorted(question.removeprefix("What is ")[:8] for question in QUESTIONS)
    assert sorted(asked[:16]) == sorted(asked[16:]) == wanted
    assert asked[:16] != asked[16:]
    assert sorted(column(folder, "reward")) == [1, 5, 9, 13]
    columns = RunReader(folder).metrics()
    assert columns.values("epoch")[-1] == 2.0
    assert columns.values("tokens")[-1] > columns.values("trained_tokens")[-1] == 16 * 4 * 6


def test_reward_rises(trained):
    folder, code = trained(
        finetuning_type="full",
        per_device_train_batch_size=16,
        gradient_accumulation_steps=1,
        ppo_epochs=4,
        max_steps=24,
        learning_rate=1e-2,
        max_new_tokens=8,
        ppo_kl_coef=0.01,
        lr_scheduler_type="constant",
    )
    assert code == 0
    columns = RunReader(folder).metrics()
    reward = columns.values("reward")
    assert len(reward) == 6
    assert reward[-1] > 1.5 * reward[0]
    assert columns.values("kl")[-1] > 1.0
    assert columns.values("entropy")[-1] < columns.values("entropy")[0]
    names = {"kl_coef", "entropy", "clip_fraction", "policy_loss", "value_loss", "explained_variance", "approx_kl"}
    assert names | {"reward_std", "response_length", "response_ended", "advantages"} <= set(columns.names)


def test_an_evaluation_answers_what_is_held_out(trained):
    folder, code = trained(val_size=4, eval_strategy="steps", eval_steps=4)
    assert code == 0
    columns = RunReader(folder).metrics()
    assert columns.steps("eval_reward").tolist() == [4, 8]
    assert columns.values("eval_loss").tolist() == pytest.approx((-columns.values("eval_reward")).tolist())


def test_the_best_checkpoint_may_be_found_by_the_reward(trained):
    more = {"val_size": 4, "eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "max_steps": 4}
    folder, code = trained(**more, load_best_model_at_end=True, metric_for_best_model="eval_reward")
    assert code == 0
    rewards = RunReader(folder).metrics().values("eval_reward").tolist()
    state = json.loads((Checkpoints(folder).path(4) / "trainer_state.json").read_text())
    assert state["best_metric"] == max(rewards)


def test_where_memory_runs_out_the_key_is_named_that_shortens_answers(make_run):
    from llf_core.config import RunConfig
    from llf_core.training.failures import explain_failure

    assert explain_failure(MemoryError(), RunConfig.load(make_run().config)).what_to_do.endswith("or max_new_tokens.")


# -- checkpoints ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("models", "step"), [("shared", 3), ("shared", 4), ("separate", 3)])
def test_stop_and_resume_repeat_the_run_to_the_last_bit(make_run, monkeypatch, models, step):
    more = {"ppo_models": models, "ppo_score_norm": True, "max_steps": 6}
    whole, folder = make_run(**more), make_run(**more)
    assert run_attempt(whole, 1) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        assert run_attempt(folder, 1) == 0
    assert read_status(folder).state == "stopped"
    assert Checkpoints(folder).list() == [step]
    assert next_attempt(folder) == 0
    for name in ("loss", "reward", "kl", "kl_coef", "grad_norm", "value_loss"):
        assert column(folder, name) == column(whole, name), name
    ours, theirs = (load_file(one.output / "adapter_model.safetensors") for one in (folder, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert len(RunReader(folder).samples()) == len(RunReader(whole).samples())


def test_a_run_with_adapters_beside_its_own_resumes_to_the_last_bit(make_run, monkeypatch, reward_adapter):
    """The reference and the reward model are adapters of the policy too, and no checkpoint holds them."""
    first = make_run(max_steps=2)
    assert run_attempt(first, 1) == 0
    more = {"reward_model_type": "lora", "reward_model": str(reward_adapter), "max_steps": 6}
    more |= {"adapter_name_or_path": str(first.output), "val_size": 4, "eval_strategy": "steps", "eval_steps": 2}
    whole, folder = make_run(**more), make_run(**more)
    assert run_attempt(whole, 1) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        assert run_attempt(folder, 1) == 0
    assert next_attempt(folder) == 0
    for name in ("loss", "reward", "kl", "grad_norm", "value_loss", "eval_reward"):
        assert column(folder, name) == column(whole, name), name
    ours, theirs = (load_file(one.output / "adapter_model.safetensors") for one in (folder, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_checkpoint_and_the_output_hold_the_policy_alone(trained, reward_adapter, tiny_model_dir):
    folder, code = trained(reward_model_type="lora", reward_model=str(reward_adapter), max_steps=2)
    assert code == 0
    names = {path.name for path in Checkpoints(folder).path(2).iterdir()}
    assert {"adapter_model.safetensors", "ppo.safetensors"} <= names
    assert "reward" not in names | {path.name for path in folder.output.iterdir()}
    stored = load_file(folder.output / "adapter_model.safetensors")
    assert stored
    assert not any("value" in name or "reward" in name or "score" in name for name in stored)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model_dir), str(folder.output))
    assert list(model.peft_config) == ["default"]


def test_full_fine_tuning_leaves_a_plain_model_and_resumes(make_run, monkeypatch):
    more = {"finetuning_type": "full", "max_steps": 4, "learning_rate": 1e-3}
    whole, folder = make_run(**more), make_run(**more)
    assert run_attempt(whole, 1) == 0
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        assert run_attempt(folder, 1) == 0
    assert next_attempt(folder) == 0
    assert column(folder, "loss") == column(whole, "loss")
    _, info = AutoModelForCausalLM.from_pretrained(folder.output, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))


# -- what goes wrong -----------------------------------------------------------------------------------------
def test_an_endpoint_that_is_down_stops_the_run_with_a_checkpoint(make_run, endpoint, monkeypatch):
    monkeypatch.setattr(models_module, "PAUSES", (0.0, 0.0))
    whole, folder = make_run(), make_run()
    assert run_attempt(whole, 1) == 0
    original = MetricsCallback.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        endpoint.status = 503 if state.global_step == 4 else 200
        original(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsCallback, "on_step_end", on_step_end)
        before = len(endpoint.asked)
        assert run_attempt(folder, 1) == 1
    assert len(endpoint.asked) - before == 2 * 2 + 3
    found = read_status(folder)
    assert found.state == "failed"
    assert found.reason == (
        f"The reward endpoint {endpoint.url} answers with status 503 (Service Unavailable). "
        "Restart it or fix reward_model, then resume."
    )
    assert Checkpoints(folder).list() == [4]
    endpoint.status = 200
    assert next_attempt(folder) == 0
    assert column(folder, "loss") == column(whole, "loss")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"scores": [NaN, 1]}', "the score NaN"),
        (f'{{"scores": [1{"0" * 400}, 1]}}', "the score 10+…"),
        (f'{{"scores": ["{"long " * 100}", 1]}}', "the score .long [long ]+…. Expected"),
        ('{"scores": [1]}', "1 scores"),
        ('{"scores": ["good", 1]}', 'the score "good"'),
        ('{"scores": 3}', "scores of type int"),
        ("<html>", "not a JSON object with scores"),
        ("[" * 100_000, "not a JSON object with scores"),
    ],
)
def test_what_is_no_score_is_told(body, said):
    one = Endpoint(lambda _: 0.0)
    one.body = body
    try:
        with pytest.raises(models_module.StopTraining, match=said):
            models_module.ask_scores(one.url, ["a", "b"])
    finally:
        one.close()
    assert len(one.asked) == 1


def test_nobody_listens(monkeypatch):
    monkeypatch.setattr(models_module, "PAUSES", (0.0, 0.0))
    with pytest.raises(models_module.StopTraining, match=r"http://127.0.0.1:9/score does not answer \(.*refused"):
        models_module.ask_scores("http://127.0.0.1:9/score?key=1", ["a"])


def test_who_asks_is_told_by_the_environment_alone(endpoint, monkeypatch):
    models_module.ask_scores(endpoint.url, ["a"])
    monkeypatch.setenv("LLF_REWARD_AUTHORIZATION", "Bearer me")
    models_module.ask_scores(endpoint.url, ["a"])
    assert [headers.get("Authorization") for headers in endpoint.headers] == [None, "Bearer me"]
    monkeypatch.setenv("LLF_REWARD_AUTHORIZATION", " Bearer me\n")  # as read from a file
    models_module.ask_scores(endpoint.url, ["a"])
    assert endpoint.headers[-1]["Authorization"] == "Bearer me"
    monkeypatch.setenv("LLF_REWARD_AUTHORIZATION", "Bearer me\nX: 1")
    with pytest.raises(models_module.StopTraining, match="LLF_REWARD_AUTHORIZATION has a character") as raised:
        models_module.ask_scores(endpoint.url, ["a"])
    assert "Bearer" not in str(raised.value)
    asked = PLAIN | {"reward_model_type": "api", "reward_model": "https://name:pw@host/score"}
    (problem,) = [one for one in validate(asked).problems if one.severity == "error"]
    assert "LLF_REWARD_AUTHORIZATION" in problem.message
    assert "pw" not in problem.message.replace("password", "")


def test_the_card_shows_no_more_than_the_address(trained, endpoint, monkeypatch):
    monkeypatch.setenv(URLS_VARIABLE, endpoint.url + "?key=secret")
    folder, code = trained(max_steps=2, reward_model=endpoint.url + "?key=secret")
    assert code == 0
    card = (folder.output / "README.md").read_text()
    assert f"reward_model: {endpoint.url}\n" in card
    assert "secret" not in card


def test_a_redirect_is_not_followed(endpoint):
    other = Endpoint(lambda _: 0.0)
    other.status, other.more = 302, {"Location": endpoint.url}
    try:
        with pytest.raises(models_module.StopTraining, match="answers with status 302"):
            models_module.ask_scores(other.url, ["a"])
    finally:
        other.close()
    assert not endpoint.asked


@pytest.mark.parametrize(
    ("pieces", "pause", "timeout", "said"), [(200, 0.02, 0.3, "timed out"), (10**9, 0.0, 60, "more than 1,000 bytes")]
)
def test_an_answer_that_never_ends_is_given_up(pieces, pause, timeout, said, monkeypatch):
    monkeypatch.setattr(models_module, "PAUSES", ())
    monkeypatch.setattr(models_module, "LARGEST", 1000)
    one = Endpoint(lambda _: 0.0)
    one.pieces, one.pause = pieces, pause
    try:
        with pytest.raises(models_module.StopTraining, match=f"does not answer .{said}"):
            models_module.ask_scores(one.url, ["a"], timeout=timeout)
    finally:
        one.close()


@pytest.mark.parametrize("address", ["http://", "http://[::1", "https://host:port/score", "ftp://host/score"])
def test_what_is_no_address_is_refused(address):
    asked = PLAIN | {"reward_model_type": "api", "reward_model": address}
    assert any("is not a URL" in one.message for one in validate(asked).problems)
    with pytest.raises(models_module.StopTraining, match="is not the URL"):
        models_module.ask_scores(address, ["a"])


def test_a_refusal_is_not_tried_again():
    one = Endpoint(lambda _: 0.0)
    one.status = 401
    try:
        with pytest.raises(models_module.StopTraining, match="status 401"):
            models_module.ask_scores(one.url, ["a"])
    finally:
        one.close()
    assert len(one.asked) == 1


def test_a_reward_model_that_gives_nan_fails_before_anything_is_learned(trained, classifier, tiny_tokenizer, tmp_path):
    broken = copy.deepcopy(classifier)
    with torch.no_grad():
        broken.score.weight.fill_(math.nan)
    broken.save_pretrained(tmp_path / "broken")
    tiny_tokenizer.save_pretrained(tmp_path / "broken")
    folder, code = trained(reward_model_type="full", reward_model=str(tmp_path / "broken"))
    assert code == 1
    assert "is nan. Expected a finite number of float32." in read_status(folder).reason
    assert not RunReader(folder).metrics().names


def test_a_policy_that_has_diverged_is_told(make_run, monkeypatch):
    folder = make_run()
    sample = rollout.RolloutWorker.generate

    def generate(self, prompts, seed, step):
        if step:
            with torch.no_grad():
                next(one for one in self.context.model.parameters() if one.requires_grad).fill_(math.nan)
        return sample(self, prompts, seed, step)

    monkeypatch.setattr(rollout.RolloutWorker, "generate", generate)
    assert run_attempt(folder, 1) == 1
    assert read_status(folder).reason.startswith("The model's logits are NaN or infinite, so that no token can be")


@pytest.mark.parametrize("score", [math.inf, 1e39, -1e39])
def test_a_score_that_float32_does_not_have_ends_the_run_before_it_is_learned_from(score):
    completion = SampledCompletion([1], [2])
    assert check_finite([Score(None), Score(1e38)], [completion] * 2, str)
    with pytest.raises(StopTraining, match=rf"is {re.escape(str(score))}\. Expected a finite number"):
        check_finite([Score(score)], [completion], lambda ids: "Why?")


def test_a_reward_model_with_other_tokens_is_refused(trained, classifier, tmp_path):
    from tests.tiny import tiny_tokenizer

    other = tiny_tokenizer()
    other.add_tokens(["<more>"])
    larger = copy.deepcopy(classifier)
    larger.resize_token_embeddings(len(other))
    larger.save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    folder, code = trained(reward_model_type="full", reward_model=str(tmp_path / "other"))
    assert code == 2
    assert "has a different tokenizer" in read_status(folder).reason


# -- rules ---------------------------------------------------------------------------------------------------
PLAIN = {"model_name_or_path": "m", "dataset": "d", "stage": "ppo", "reward_model": "r", "top_k": 0, "top_p": 1.0}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"reward_model": None}, "reward_model"),
        ({"reward_model_type": "api"}, "reward_model"),
        ({"finetuning_type": "full"}, "reward_model_type"),
        ({"reward_model_adapters": "a"}, "reward_model_adapters"),
        ({"reward_model_quantization_bit": 4}, "reward_model_quantization_bit"),
        ({"streaming": True, "max_steps": 5}, "streaming"),
        ({"packing": True}, "packing"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy"),
        ({"num_beams": 2}, "num_beams"),
        ({"neftune_noise_alpha": 5}, "neftune_noise_alpha"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"cutoff_strategy": "split"}, "cutoff_strategy"),
        ({"reward_functions": "correct"}, "reward_functions"),
        ({"metric_for_best_model": "accuracy"}, "metric_for_best_model"),
        ({"greater_is_better": True}, "greater_is_better"),
    ],
)
def test_what_cannot_be(changes, key):
    assert validate(PLAIN).ok
    values = {name: value for name, value in (PLAIN | changes).items() if value is not None}
    report = validate(values)
    assert key in {one.key for one in report.problems if one.severity == "error"}


@pytest.mark.parametrize(
    "changes", [{"top_k": 50}, {"top_p": 0.7}, {"repetition_penalty": 1.2}, {"do_sample": False}, {"max_new_tokens": 0}]
)
def test_what_is_risky(changes):
    report = validate(PLAIN | changes)
    assert report.ok
    assert [one.severity for one in report.problems if one.severity != "note"] == ["warning"]


def test_llama_factorys_own_yaml_is_taken():
    report = validate(
        {
            "model_name_or_path": "meta-llama/Meta-Llama-3-8B-Instruct",
            "reward_model": "saves/llama3-8b/lora/reward",
            "stage": "ppo",
            "do_train": True,
            "finetuning_type": "lora",
            "lora_rank": 8,
            "lora_target": "all",
            "dataset": "identity,alpaca_en_demo",
            "template": "llama3",
            "cutoff_len": 2048,
            "output_dir": "saves/llama3-8b/lora/ppo",
            "max_new_tokens": 512,
            "top_k": 0,
            "top_p": 0.9,
        }
    )
    assert report.ok


def test_state_without_a_file_is_whole(make_context, tmp_path):
    stage = PPO(make_context(ppo_models="separate"))
    stage.batches([{}, {}])
    with torch.no_grad():
        for parameter in stage.ppo_models.value_container.trained().values():
            parameter.add_(1.0)
    stage.save(tmp_path)
    again = PPO(make_context(ppo_models="separate"))
    again.load(tmp_path)
    for name, parameter in stage.ppo_models.value_container.trained().items():
        assert torch.equal(parameter, again.ppo_models.value_container.trained()[name])
    assert again.rollout.answers == stage.rollout.answers
    assert torch.equal(again.rollout.advantages, stage.rollout.advantages)


# -- reward functions ----------------------------------------------------------------------------------------
FUNCTIONS = {
    "letters": "def letters(answer, prompt, number):\n"
    "    assert prompt.startswith('What is') and isinstance(number, int)\n"
    "    return float(sum(one.isalpha() for one in answer))\n",
    "short": "def short(answer, tokens):\n    return -tokens\n",
    "broken": "def broken(answer):\n    return float('nan')\n",
    "noting": "def noting(completions, log_metric):\n    return [1.0 for _ in completions]\n",
    "perhaps": "def perhaps(completions, number, log_metric=None):\n    return [float(one) for one in number]\n",
    "silent": "def silent(answer):\n    return None\n",
    "even": "def even(answer, number):\n    return None if number % 2 else 1.0\n",
    "single": "def single(answer, tokens, number):\n    return float(tokens) if number % 2 else None\n",
    "untried": "seen = []\n\n\ndef untried(answer, prompt):\n"
    "    seen.append(prompt)\n    return 1.0 if len(seen) < 5 else None\n",
    "late": "def late(answer, number):\n    return 1.0 if number > 11 else None\n",
}


@pytest.fixture
def functions(tmp_path):
    """What a run by reward functions is told, and a data set with a column for them."""
    path = tmp_path / "numbered.json"
    path.write_text(json.dumps([{"instruction": one, "number": number} for number, one in enumerate(QUESTIONS)]))
    return {"reward_model_type": "function", "reward_model": None, "dataset": str(path)}


def with_code(folder):
    folder.code.mkdir(exist_ok=True)
    for name, text in FUNCTIONS.items():
        (folder.code / f"{name}.py").write_text(text)
    sign_run(folder)
    return folder


def test_reward_functions_are_weighed_and_told_of_the_record(make_run, functions, tiny_tokenizer):
    folder = with_code(make_run(**functions, reward_functions="letters,short", reward_weights="2,0.5", val_size=4))
    assert run_attempt(folder, 1) == 0
    shown = RunReader(folder).samples()
    assert shown
    for one in shown:
        letters = sum(letter.isalpha() for letter in one["text"])
        assert one["reward"] == 2 * letters - 0.5 * 6
        assert one["rewards"] == {"letters": letters, "short": -6.0}
    columns = RunReader(folder).metrics()
    assert len(columns.values("eval_reward")) == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("broken", "returned nan"),
        ("silent", "No reward function applies to any of 16 answers (all gave None). Fix silent so that"),
        ("none", "Unknown reward function none"),
    ],
)
def test_a_function_that_gives_no_number(make_run, functions, name, said):
    folder = with_code(make_run(**functions, reward_functions=name))
    assert run_attempt(folder, 1) == 1
    assert said in read_status(folder).reason
    assert not RunReader(folder).metrics().names


def test_an_answer_that_no_function_judges_is_left_out_and_counted(make_run, functions):
    folder = with_code(make_run(**functions, reward_functions="even", ppo_buffer_size=4, max_steps=8))
    assert run_attempt(folder, 1) == 0
    columns = RunReader(folder).metrics()
    assert columns.values("unjudged").tolist() == [0.5]  # of all 16 prompts
    assert columns.values("reward").tolist() == [1.0]
    (told,) = [event for event in events(folder, "warning") if event["key"] == "reward_functions"]
    assert told["message"].startswith("All reward functions returned None for 8 of 16 completions")
    assert {one["reward"] for one in RunReader(folder).samples()} == {1.0}
    assert columns.values("rewards/even/mean").tolist() == [1.0]
    assert columns.values("rewards/even/skipped").tolist() == [0.5]
    assert columns.values("trained_tokens")[-1] == 2 * 8 * 6


def test_prompts_that_nothing_judges_are_passed_over_and_counted(make_run, functions, monkeypatch):
    one = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "max_steps": 6}
    whole, folder = (with_code(make_run(**functions, **one, reward_functions="late")) for _ in range(2))
    assert run_attempt(whole, 1) == 0
    columns = RunReader(whole).metrics()
    assert columns.values("reward").tolist() == [1.0] * 3
    asked = [1 / (1 - share) for share in columns.values("unjudged")]  # of which the last one alone was judged
    assert asked == pytest.approx([round(one) for one in asked])
    assert sum(asked) > 3
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        assert run_attempt(folder, 1) == 0
    assert next_attempt(folder) == 0
    for name in ("loss", "reward", "unjudged"):
        assert column(folder, name) == column(whole, name), name


def test_a_run_that_halts_while_it_looks_for_what_can_be_judged_has_changed_nothing(
    make_context, functions, monkeypatch
):
    one = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    stage = PPO(make_context(**functions, **one, reward_functions="format"))
    before = stage.state()
    unscored = WeightedSum([Reward("format", lambda answer: None)], [1.0])
    monkeypatch.setattr(stage.ppo_models.score, "_weighted_sum", unscored)
    with pytest.raises(models_module.StopTraining, match=r"any of 16 answers .*\. Start a new run with"):
        stage.batches([{}])
    assert stage.state() == before


def test_an_evaluation_is_a_mean_over_what_can_be_judged(make_run, functions, tmp_path):
    held = tmp_path / "held.json"
    rows = [
        {"instruction": question, "number": number % 2 * (number > 2)} for number, question in enumerate(QUESTIONS[:5])
    ]
    held.write_text(json.dumps(rows))
    more = {"eval_dataset": str(held), "per_device_eval_batch_size": 2, "max_steps": 2}
    folder = with_code(make_run(**functions, **more, reward_functions="single"))
    assert run_attempt(folder, 1) == 0
    columns = RunReader(folder).metrics()
    assert columns.values("eval_reward").tolist() == [6.0]  # of the one that is odd
    assert columns.values("eval_loss").tolist() == [-6.0]
    assert columns.values("eval_unjudged").tolist() == [0.8]


def test_an_evaluation_that_judges_nothing_ends_the_run_with_a_checkpoint(make_run, functions):
    more = {"val_size": 4, "eval_strategy": "steps", "eval_steps": 2, "max_steps": 4}
    folder = with_code(make_run(**functions, **more, reward_functions="untried"))
    assert run_attempt(folder, 1) == 1
    assert "No reward function applies to any of the held-out answers" in read_status(folder).reason
    assert Checkpoints(folder).list() == [2]


def test_a_held_out_prompt_that_functions_cannot_judge_is_left_out(make_run, functions, tmp_path):
    held = tmp_path / "held.json"
    rows = [{"instruction": one, "number": 2} for one in ("Say " * 400, *QUESTIONS[:2])]
    held.write_text(json.dumps(rows))
    folder = with_code(make_run(**functions, eval_dataset=str(held), max_steps=2, reward_functions="even"))
    assert run_attempt(folder, 1) == 0
    columns = RunReader(folder).metrics()
    assert columns.values("eval_reward").tolist() == [1.0]
    (told,) = [event for event in events(folder, "warning") if event["key"] == "cutoff_len"]
    assert told["message"] == "1 prompt has more than cutoff_len 128 tokens and is dropped."
    folder = with_code(
        make_run(**functions, eval_dataset=str(held), max_steps=2, reward_functions="even", stop_on_dropped=True)
    )
    assert run_attempt(folder, 1) == 2
    assert "and is dropped. `stop_on_dropped` is true. Raise cutoff_len or change" in read_status(folder).reason


def test_a_function_that_takes_another_column_is_told_before_anything(make_run, functions, prompts_file):
    folder = with_code(make_run(**(functions | {"dataset": str(prompts_file)}), reward_functions="letters"))
    assert run_attempt(folder, 1) == 2
    assert "letters takes number, which is not a column" in read_status(folder).reason


def test_what_only_trls_trainers_tell_is_refused_before_anything(make_run, functions):
    folder = with_code(make_run(**functions, reward_functions="noting"))
    assert run_attempt(folder, 1) == 2
    assert read_status(folder).reason.startswith("The reward function noting takes log_metric, which only TRL trainers")
    folder = with_code(make_run(**functions, max_steps=2, reward_functions="perhaps"))
    assert run_attempt(folder, 1) == 0


def test_functions_need_names_and_whole_weights():
    asked = {key: value for key, value in PLAIN.items() if key != "reward_model"} | {"reward_model_type": "function"}
    assert {one.key for one in validate(asked).problems if one.severity == "error"} == {"reward_functions"}
    assert validate(asked | {"reward_functions": "format"}).ok
    for wrong in ({"reward_functions": "format,format"}, {"reward_functions": "length", "max_new_tokens": 0}):
        report = validate(asked | wrong)
        assert {one.key for one in report.problems if one.severity == "error"} == {"reward_functions"}
    report = validate(asked | {"reward_functions": "format", "reward_weights": "1,2"})
    assert {one.key for one in report.problems if one.severity == "error"} == {"reward_weights"}


def test_base_and_result_are_compared_by_their_rewards(make_run):
    from llf_core.evaluation.run_losses import losses

    more = {"per_device_train_batch_size": 6, "ppo_kl_coef": 0.01, "max_new_tokens": 8}
    folder = make_run(val_size=4, finetuning_type="full", learning_rate=1e-2, max_steps=16, **more)
    assert run_attempt(folder, 1) == 0
    found = losses(folder)
    assert found.examples == 4
    assert found.tuned == pytest.approx(RunReader(folder).metrics().values("eval_loss")[-1])
    assert found.tuned < found.base


def test_base_and_result_are_compared_by_functions_of_a_cell(make_run, functions):
    from llf_core.evaluation.run_losses import losses

    folder = with_code(make_run(**functions, reward_functions="letters", val_size=4, max_steps=2))
    assert run_attempt(folder, 1) == 0
    assert losses(folder).tuned == pytest.approx(RunReader(folder).metrics().values("eval_loss")[-1])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rollout.returns", lambda one: one[:-1]),
        ("rollout.answers.lengths", lambda one: one + 1),
        ("rollout.prompts.lengths", lambda one: one[:0]),
        ("value.linear.weight", lambda one: one[:, :-1]),
        ("rollout.answers", None),
    ],
)
def test_completions_that_are_none_end_a_resume_with_a_sentence(make_run, monkeypatch, name, change):
    folder = make_run()
    with monkeypatch.context() as patch:
        stop_at(patch, 1)
        assert run_attempt(folder, 1) == 0
    path = folder.checkpoints / "checkpoint-1" / "ppo.safetensors"
    tensors = load_file(path)
    old = tensors.pop(name)
    save_file(tensors | ({} if change is None else {name: change(old).contiguous()}), path)
    Checkpoints(folder).finish(1)
    status.begin_attempt(folder, 2)
    assert run_attempt(folder, 2) == 2
    assert "What stage ppo has stored in checkpoint-1 is not one of this run: " in read_status(folder).reason


@pytest.mark.parametrize(
    "changes",
    [
        {"sizes": {"write": 0, "read": 1}},
        {"sizes": {"write": 1}},
        {"sizes": {"write": 1, "read": 1, "more": 1}},
        {"coefficient": 10**400},
        {"moments": {"count": 10**400, "mean": 0.0, "squares": 0.0}},
        {"coefficient": -5},
        {"moments": {"count": -4.0, "mean": 0.0, "squares": 0.0}},
        {"moments": {"count": 4.0, "mean": 0.0, "squares": -1.0}},
        {"moments": {"count": 1}},
    ],
)
def test_a_state_out_of_range_is_refused(make_context, changes):
    stage = PPO(make_context())
    before = stage.state() | {"phase": 0}
    stage.restore(before | {"moments": {"count": 4.0, "mean": -1.0, "squares": 2.0}})
    stage.restore(before)
    with pytest.raises((ValueError, KeyError), match=r"expected are|mean"):
        stage.restore(before | changes)
    assert stage.state() == before

"""Rules for runs that learn from preferences and rewards: silent on healthy curves, each names its pathology alone."""

import re

import numpy as np
import pytest

from llf_core.config.declaration import StageDeclaration
from llf_core.config.registry import declared
from llf_core.doctor.rule import Rule, with_loss
from tests.core.doctor.test_loss_rules import found, vitals

STAGES = declared(StageDeclaration)
PREFERENCE = tuple(name for name, stage in STAGES.items() if stage.loss_kind == "preference")
SAMPLED = tuple(name for name, stage in STAGES.items() if stage.loss_kind == "reward")
COUNT = 120
SEEDS = range(5)


def everyday(chance, steps):
    """What every run logs."""
    return {
        "learning_rate": (steps, 5e-6 * (1 - (steps - 1) / COUNT)),
        "tokens_per_second": (steps, 1000 * np.exp(chance.normal(0, 0.12, COUNT))),
        "memory": (steps, 1.6e9 + 4e8 * (1 - np.exp(-steps / 8))),
        "epoch": (steps, steps / 40),
    }


def preference(seed=0):
    """DPO as it should go: the loss falls towards 0, and so does the gradient but for a hard batch now and then."""
    chance = np.random.default_rng(seed)
    steps = np.arange(1, COUNT + 1)
    margin = 8 * (1 - np.exp(-steps / 40)) * np.exp(chance.normal(0, 0.2, COUNT))
    chosen = -0.4 * (1 - np.exp(-steps / 40)) + chance.normal(0, 0.05, COUNT)
    loss = np.log1p(np.exp(-margin))
    every = steps[19::20]
    return everyday(chance, steps) | {
        "loss": (steps, loss),
        "grad_norm": (steps, 3 * loss * np.exp(chance.normal(0, 0.4, COUNT))),
        "rewards/chosen": (steps, chosen),
        "rewards/rejected": (steps, chosen - margin),
        "rewards/margins": (steps, margin),
        "rewards/accuracies": (steps, np.clip(0.5 + margin / 8, 0, 1)),
        "logps/chosen": (steps, -200 + 10 * chosen + chance.normal(0, 20, COUNT)),
        "logps/rejected": (steps, -220 - 10 * margin),
        "eval_loss": (every, 0.02 + 0.6 * np.exp(-every / 20) + chance.normal(0, 0.004, len(every))),
    }


def sampled(seed=0):
    """PPO or GRPO as it should go: the loss is noise around 0, the reward rises."""
    chance = np.random.default_rng(seed)
    steps = np.arange(1, COUNT + 1)
    learned = 1 - np.exp(-steps / 40)
    return (
        everyday(chance, steps)
        | {
            "loss": (steps, chance.normal(0, 0.02, COUNT)),
            "grad_norm": (steps, np.where(chance.random(COUNT) < 0.3, 0.0, np.exp(chance.normal(0, 0.5, COUNT)))),
            "tokens_per_second": (steps, np.where(steps % 8 < 4, 60.0, 1000.0)),  # answers are written in some of them
            "reward": (steps, learned + chance.normal(0, 0.1, COUNT)),
            "reward_std": (steps, np.where(chance.random(COUNT) < 0.3, 0.0, 0.4)),
            "kl": (steps, 0.2 * learned * np.exp(chance.normal(0, 0.3, COUNT))),
            "entropy": (steps, 1.5 - learned + chance.normal(0, 0.05, COUNT)),
            "completions/clipped_ratio": (steps, np.clip(0.7 - 2 * learned, 0.05, 1) * (chance.random(COUNT) < 0.8)),
            "eval_loss": (steps[19::20], -learned[19::20]),
        }
    )


def at(series, stage, **config):
    return vitals(series, config={"stage": stage, "pref_beta": 0.1, "finetuning_type": "lora"} | config,
                  learning_rate=5e-6)  # fmt: skip


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("stage", PREFERENCE + SAMPLED)
def test_a_healthy_run_has_no_finding_at_any_time(stage, seed):
    whole = preference(seed) if stage in PREFERENCE else sampled(seed)
    for count in range(1, COUNT + 1, 4):
        so_far = {name: (steps[steps <= count], values[steps <= count]) for name, (steps, values) in whole.items()}
        assert found(at(so_far, stage)) == {}, (stage, seed, count)


def changed(series, name, change):
    steps, values = series[name]
    return series | {name: (steps, change(steps, values.copy()))}


def test_a_loss_that_reaches_zero_is_a_finding_of_answers_alone():
    """A hinge loss is 0 once all margins are wide enough, and with it the gradient."""
    well = changed(preference(), "loss", lambda s, v: np.where(s > 60, 0, v))
    well = changed(well, "grad_norm", lambda s, v: np.where(s > 60, 0, v))
    assert found(at(well, "dpo", pref_loss="hinge")) == {}
    assert "nothing_learned" in found(at(well, "sft"))


def test_a_hard_batch_late_in_a_run_is_no_explosion_where_gradients_fade():
    hard = changed(preference(), "grad_norm", lambda s, v: np.where(s > 117, 0.9, np.where(s > 60, 1e-3, v)))
    assert found(at(hard, "dpo")) == {}
    assert list(found(at(hard, "sft"))) == ["gradient_explodes"]
    worse = changed(hard, "grad_norm", lambda s, v: np.where(s > 117, 90.0, v))
    assert list(found(at(worse, "dpo"))) == ["gradient_explodes"]


def test_a_held_out_loss_near_zero_may_double():
    near = preference()
    near["eval_loss"] = np.arange(20, 121, 20), np.array([0.1, 0.03, 0.01, 0.012, 0.018, 0.021])
    assert found(at(near, "dpo")) == {}
    near["eval_loss"] = np.arange(20, 121, 20), np.array([0.6, 0.5, 0.4, 0.42, 0.47, 0.52])
    assert list(found(at(near, "dpo"))) == ["evaluation_rises"]


def displaced(series):
    steps, chosen = series["rewards/chosen"]
    fall = -0.06 * steps  # 72 nats at the end, with a beta of 0.1
    return series | {
        "rewards/chosen": (steps, chosen + fall),
        "rewards/rejected": (steps, series["rewards/rejected"][1] + fall),
        "logps/chosen": (steps, series["logps/chosen"][1] + 10 * fall),
    }


PATHOLOGIES = {
    "likelihood_falls": ("dpo", displaced(preference())),
    "no_preference": (
        "rm",
        changed(preference(), "rewards/accuracies", lambda s, _: np.random.default_rng(1).choice([0.25, 0.75], len(s))),
    ),
    "kl_runs_away": ("grpo", changed(sampled(), "kl", lambda s, v: np.exp(s / 25 - 3))),
    "same_rewards": ("grpo", changed(sampled(), "reward_std", lambda s, v: np.where(s > 100, 0, v))),
    "entropy_collapses": ("ppo", changed(sampled(), "entropy", lambda s, v: np.where(s > 90, 0.02, v))),
    "answers_cut": ("grpo", changed(sampled(), "completions/clipped_ratio", lambda s, v: np.where(s > 100, 0.9, v))),
}  # fmt: skip


@pytest.mark.parametrize("rule", PATHOLOGIES)
def test_a_pathology_is_named_alone(rule):
    stage, series = PATHOLOGIES[rule]
    assert list(found(at(series, stage))) == [rule]


@pytest.mark.parametrize("rule", ["likelihood_falls", "no_preference", "kl_runs_away", "entropy_collapses"])
def test_a_learning_rate_that_is_not_known_is_not_named(rule):
    stage, series = PATHOLOGIES[rule]
    told = found(vitals(series, config={"stage": stage, "pref_beta": 0.1}, learning_rate=0.0))[rule]
    assert "er learning rate" in told.fix  # lower, or higher
    assert re.search(r"learning rate (below|of|than) 0", told.fix) is None


def test_numbers_in_the_sentences_are_those_of_the_curves():
    said = found(at(displaced(preference()), "dpo"))["likelihood_falls"]
    # The last quarter stands around step 105.5: 63 nats by the fall, 4 as in the healthy run; 200 nats each.
    assert said.message.startswith("The chosen responses have become less likely too: by 67 of")
    assert said.config == {"pref_ftx": 0.2}
    steps = np.arange(1, 41)
    kl = np.where(steps > 20, 4.0, 0.5)
    said = found(at(sampled() | {"kl": (steps, kl)}, "grpo"))["kl_runs_away"]
    assert "a KL of 4 nats a token since step 36, 0.5 before" in said.message


def test_a_loss_without_a_reference_has_no_likelihood_to_fall():
    assert found(at(displaced(preference()), "dpo", pref_loss="orpo")) == {}


def test_a_kl_of_whole_answers_is_measured_by_another_length():
    kl = changed(sampled(), "kl", lambda s, v: np.exp(s / 30 - 1))  # 20 nats at the end
    assert found(at(kl, "ppo")) == {}
    assert list(found(at(kl, "grpo"))) == ["kl_runs_away"]


def test_answers_of_ppo_that_do_not_end_are_told_by_their_own_number():
    steps = np.arange(1, 41)
    series = {name: line for name, line in sampled().items() if name != "completions/clipped_ratio"}
    series["response_ended"] = steps, np.where(steps > 20, 0.1, 0.9)
    told = found(at(series, "ppo"))["answers_cut"]
    assert told.message.startswith("90 % of the completions have been truncated")
    assert told.fix.startswith("Allow longer completions (raise max_new_tokens)")


def test_a_rule_without_stages_holds_for_every_one():
    rule = Rule("a", lambda _: None)
    assert rule.applies_to(STAGES["sft"])
    assert rule.applies_to(None)  # a stage that is not installed here
    assert not Rule("a", lambda _: None, with_loss("preference")).applies_to(STAGES["sft"])
    assert not Rule("a", lambda _: None, with_loss("preference")).applies_to(None)

"""Each rule names its pathology and is silent on healthy curves."""

import re
from pathlib import Path

import numpy as np
import pytest

from llf_core.config.declaration import StageDeclaration
from llf_core.config.registry import declared
from llf_core.doctor import loss_rules
from llf_core.doctor.loss_rules import RULES
from llf_core.doctor.rule import RunMetrics

HEALTHY_SEEDS = range(10)


def healthy(seed=0, count=120):
    """Curves like those of a run that learns: noisy, falling, with a schedule."""
    chance = np.random.default_rng(seed)
    steps = np.arange(1, count + 1)
    loss = 1.2 + 0.9 * np.exp(-steps / 30) + chance.normal(0, 0.12, count)
    norms = np.exp(chance.normal(-0.5, 0.4, count)) * (1 + 3 * np.exp(-steps / 5))
    speed = 1000 * np.exp(chance.normal(0, 0.12, count))
    memory = 1.6e9 + 4e8 * (1 - np.exp(-steps / 8)) + np.cumsum(chance.random(count) < 0.02) * 5e6
    tokens = np.cumsum(chance.integers(400, 900, count)).astype(float)
    every = steps[19::20]
    return {
        "loss": (steps, loss),
        "grad_norm": (steps, norms),
        "learning_rate": (steps, 2e-4 * (1 - (steps - 1) / count)),
        "tokens_per_second": (steps, speed),
        "memory": (steps, memory),
        "tokens": (steps, tokens),
        "trained_tokens": (steps, tokens * 0.6),
        "eval_loss": (every, 1.3 + 0.5 * np.exp(-every / 30) + chance.normal(0, 0.003, len(every))),
    }


def vitals(series, **changes):
    steps = series["loss"][0]
    facts = {
        "step": int(steps[-1]),
        "total": 120,
        "step_seconds": 2.0,
        "learning_rate": 2e-4,
        "config": {"finetuning_type": "lora", "max_grad_norm": 1.0},
        "data": {"eval_examples": 50, "leaked": 0},
        "memory_limit": 8e9,
    }
    return RunMetrics(series, **(facts | changes))


def found(one):
    rules_of_stage = [rule for rule in RULES if rule.applies_to(one.stage)]
    return {finding.rule: finding for rule in rules_of_stage if (finding := rule.look(one)) is not None}


@pytest.mark.parametrize("seed", HEALTHY_SEEDS)
def test_a_healthy_run_has_no_finding_at_any_time(seed):
    whole = healthy(seed)
    for count in range(1, 121, 4):
        so_far = {name: (steps[steps <= count], values[steps <= count]) for name, (steps, values) in whole.items()}
        assert found(vitals(so_far)) == {}, (seed, count)


@pytest.mark.parametrize("seed", HEALTHY_SEEDS)
def test_batches_of_one_example_are_noisy_and_no_finding(seed):
    chance = np.random.default_rng(seed)
    whole = healthy(seed)
    steps, loss = whole["loss"]
    whole["loss"] = steps, loss * np.exp(chance.normal(0, 0.5, len(steps)))
    whole["grad_norm"] = steps, whole["grad_norm"][1] * np.exp(chance.normal(0, 0.4, len(steps)))
    for count in range(1, 121, 4):
        so_far = {name: (steps[steps <= count], values[steps <= count]) for name, (steps, values) in whole.items()}
        assert found(vitals(so_far)) == {}, (seed, count)


def test_a_model_that_is_spoiled_at_once_is_named():
    series = healthy()
    steps = np.arange(1, 13)
    series["loss"] = steps, np.array([1.6, 5.0, 8.1, 7.2, 7.9, 7.4, 7.6, 7.3, 7.5, 7.4, 7.2, 7.3])
    assert list(found(vitals(series))) == ["diverged"]


def test_a_run_without_numbers_yet_has_no_finding():
    assert found(RunMetrics({})) == {}


def changed(name, change, seed=0):
    series = healthy(seed)
    steps, values = series[name]
    series[name] = steps, change(steps, values.copy())
    return series


def late(factor):
    """The last quarter times a factor."""
    return lambda steps, values: np.where(steps > 90, values * factor, values)


PATHOLOGIES = {
    "not_finite": changed("loss", lambda s, v: np.where(s == 60, np.nan, v)),
    "diverged": changed("loss", lambda s, v: np.where(s > 20, 2.5 + 0.05 * s, v)),
    "gradient_explodes": changed("grad_norm", lambda s, v: np.where(s > 116, v * 40, v)),
    "slower": changed("tokens_per_second", late(0.3)),
    "memory_creeps": changed("memory", lambda s, v: v + 1e8 * s),
    "nothing_trained": changed("grad_norm", lambda s, v: 0 * v),
    "evaluation_rises": changed("eval_loss", lambda s, v: np.array([1.6, 1.5, 1.45, 1.52, 1.6, 1.7])),
    "nothing_learned": changed("trained_tokens", lambda s, v: 0 * v),
}


def waiting(*seconds):
    """Healthy curves of a run whose processes wait for each other, in seconds of each step of 2 s."""
    series = healthy()
    steps = series["loss"][0]
    waits = {f"waiting/{rank}": (steps, np.resize(one, len(steps))) for rank, one in enumerate(seconds)}
    return series | waits | {"step_seconds": (steps, np.full(len(steps), 2.0))}


def test_the_slowest_process_is_named_where_the_others_wait_for_a_fifth_of_a_step():
    finding = found(vitals(waiting([0.9], [0.1], [0.7])))["slowest_process"]
    assert finding.message == (
        "Process 1 of 3 (counted from 0) is the slowest since step 111: the others wait 0.7 s of each step of 2 s for "
        "it (35%)."
    )
    assert not found(vitals(waiting([0.5], [0.2])))  # 15 %
    assert not found(vitals(waiting([0.9, 0.0], [0.0, 0.9])))  # now the one, now the other


def test_a_process_with_other_weights_spoils_the_result():
    series = healthy()
    finding = found(vitals(series | {"other_weights": (np.array([40, 41]), np.array([3.0, 3.0]))}))["processes_differ"]
    assert finding.outcome == (
        "Process 3 (counted from 0) has other weights than process 0 at step 40. The result is unusable."
    )


@pytest.mark.parametrize("rule", PATHOLOGIES)
def test_a_pathology_is_named_alone(rule):
    assert list(found(vitals(PATHOLOGIES[rule]))) == [rule]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
@pytest.mark.parametrize("scale", [1e-6, 1e-4, 1e-3, 2e-3])
def test_a_loss_near_0_that_rises_by_next_to_nothing_is_no_finding(scale, stage):
    """As of a run that had learned its rows by heart: "risen from 0.000 to 0.000"."""
    series = changed("eval_loss", lambda s, v: scale * np.array([3, 1.5, 1, 1.2, 1.5, 2]))
    assert "evaluation_rises" not in found(vitals(series, config={"stage": stage, "finetuning_type": "lora"}))


def test_a_finding_never_names_the_same_number_twice():
    for scale in np.geomspace(1e-5, 10, 40):
        series = changed("eval_loss", lambda s, v, scale=scale: scale * np.array([1.6, 1.5, 1.0, 1.04, 1.05, 1.06]))
        finding = found(vitals(series)).get("evaluation_rises")
        if finding is not None:
            low, high = re.findall(r"from (\S+) to (\S+):", finding.message)[0]
            assert float(high) > float(low)


def test_a_dip_of_some_seconds_is_no_slow_run():
    series = changed("tokens_per_second", late(0.3))
    assert (
        list(found(vitals(series, step_seconds=0.3))) == []
    )  # 30 steps of 120: a quarter is not enough to compare with
    assert list(found(vitals(series, step_seconds=0.4))) == ["slower"]
    dip = changed("tokens_per_second", lambda s, v: np.where(s > 112, v * 0.3, v))
    assert list(found(vitals(dip, step_seconds=0.5))) == []  # four seconds
    assert list(found(vitals(dip, step_seconds=2.0))) == ["slower"]


def test_a_loss_of_zero_is_nothing_to_learn():
    series = changed("loss", lambda s, v: 0 * v)
    assert "nothing_learned" in found(vitals(series))


def test_a_low_rate_is_named_where_the_loss_hardly_falls():
    flat = changed("loss", lambda s, v: 2.0 + 0 * s)
    assert found(vitals(flat, learning_rate=1e-7))["too_slow_a_rate"].change == {"learning_rate": 1e-6}
    assert found(vitals(flat)) == {}  # at a usual rate the data may be learned already
    assert found(vitals(healthy(), learning_rate=1e-7)) == {}  # it falls


def test_a_schedule_that_stays_at_zero_is_named():
    assert "nothing_trained" in found(vitals(changed("learning_rate", lambda s, v: 0 * v)))


def test_leaked_examples_are_counted():
    finding = found(vitals(healthy(), data={"eval_examples": 200, "leaked": 200}))["evaluation_leaks"]
    assert finding.message.startswith("200 of the 200 evaluation examples are in the training set too")


def test_copies_are_told_where_they_are_many():
    finding = found(vitals(healthy(), data={"examples": 2026, "copies": 1127}))["copies"]
    assert finding.message.startswith("1,127 of the 2,026 training examples are duplicates of earlier ones")
    assert finding.config == {"drop_duplicates": True}
    assert found(vitals(healthy(), data={"examples": 2026, "copies": 60})) == {}


def drawn(seed=0, count=60):
    """Curves of a run whose answers earn more and more: its loss is noise around 0, and so are its gradients."""
    chance = np.random.default_rng(seed)
    steps = np.arange(1, count + 1)
    equal = np.clip(chance.normal(0.3, 0.3, count), 0, 0.9)
    series = {
        "loss": chance.normal(0, 0.1, count) * (chance.random(count) < 0.5),
        "grad_norm": np.exp(chance.normal(-1, 1.5, count)) * (chance.random(count) < 0.7),
        "learning_rate": np.full(count, 1e-6),
        "tokens_per_second": 1000 / (1 + steps / 20),
        "tokens": np.cumsum(np.full(count, 500.0)),
        "trained_tokens": np.cumsum(np.full(count, 300.0)),
        "reward": steps / count,
        "frac_reward_zero_std": equal,
    }
    return {name: (steps, values) for name, values in series.items()} | {
        "eval_loss": (steps[9::10], chance.normal(0, 0.1, count // 10))
    }


def of_a_run(stage, series, **changes):
    one = vitals(series, config={"stage": stage}, learning_rate=1e-6, **changes)
    holding = [rule for rule in RULES if rule.applies_to(one.stage)]
    return {finding.rule: finding for rule in holding if (finding := rule.look(one)) is not None}


@pytest.mark.parametrize("seed", HEALTHY_SEEDS)
def test_a_run_that_draws_answers_is_not_judged_by_its_loss(seed):
    whole = drawn(seed)
    for count in range(1, 61, 3):
        so_far = {name: (steps[steps <= count], values[steps <= count]) for name, (steps, values) in whole.items()}
        assert of_a_run("grpo", so_far) == {}, (seed, count)
    assert of_a_run("sft", whole) != {}


def test_answers_that_all_earn_the_same_are_named():
    series = drawn()
    steps, equal = series["frac_reward_zero_std"]
    series["frac_reward_zero_std"] = steps, np.where(steps > 55, 1.0, equal)
    finding = of_a_run("rloo", series)["same_rewards"]
    assert finding.message.startswith("All completions of a prompt have had the same reward (1) since step 56")
    series["frac_reward_zero_std"] = steps, np.where(steps > 56, 1.0, equal)
    assert of_a_run("rloo", series) == {}
    assert "not_finite" in of_a_run("grpo", series | {"loss": (steps, np.where(steps == 9, np.nan, 0.1))})


def test_a_loss_that_is_not_finite_names_the_precision_to_try():
    broken = PATHOLOGIES["not_finite"]
    assert found(vitals(broken))["not_finite"].fix.endswith("or train in fp32.")
    config = {"stage": "sft", "fp16": True}
    assert found(vitals(broken, config=config))["not_finite"].fix.endswith("or train in bf16 in place of fp16.")


def test_the_stages_that_draw_answers_are_those_that_learn_from_prompts():
    for stage in declared(StageDeclaration).values():
        assert (stage.data_kind == "prompts") == (stage.loss_kind == "reward") == bool(stage.completion_limit)


def test_a_step_that_does_not_end_is_named_while_the_run_is_running():
    assert found(vitals(healthy(), idle=119)) == {}
    assert found(vitals(healthy(), idle=300, running=False)) == {}
    finding = found(vitals(healthy(), idle=300))["stalled"]
    assert finding.message == "Step 121 has not ended for 5 min; a step took 2 s."
    assert found(vitals(healthy(), idle=300, step_seconds=60)) == {}  # a slow model


def test_numbers_in_the_sentences_are_those_of_the_curves():
    series = healthy()
    steps = np.arange(1, 41)
    series["memory"] = steps, 1e9 + 1e7 * steps
    finding = loss_rules.memory_leaks(vitals(series, memory_limit=2e9))
    assert "10.0 MB a step" in finding.message
    assert finding.message.endswith("At this rate 2.0 GB will be full at step 100.")
    assert loss_rules.memory_leaks(vitals(series, memory_limit=2e9, total=99)) is None  # it ends before


def test_the_guide_tells_of_every_rule():
    guide = (Path(__file__).parents[3] / "docs" / "live.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(\w+)` \| ", guide.partition("## The doctor")[2], re.MULTILINE))
    assert told == {rule.name for rule in RULES}


def test_what_the_doctor_would_change_can_be_changed():
    from llf_core.config.field_specs import field
    from llf_core.runs.control import check_changes

    for series in PATHOLOGIES.values():
        for finding in found(vitals(series)).values():
            assert finding.fix
            if finding.change:
                check_changes(finding.change)
            for key in finding.config:
                assert field(key) is not None


def test_a_step_that_draws_first_has_not_stalled():
    whole = healthy()
    steps = whole["loss"][0]
    seconds = np.where(steps % 4 == 1, 30.0, 2.0)  # every fourth draws answers first
    idle = {"series": whole | {"step_seconds": (steps, seconds)}, "running": True, "idle": 200.0}
    assert "stalled" in found(vitals(**idle))
    assert "stalled" not in found(vitals(**idle, config={"stage": "ppo"}))
    assert "stalled" in found(vitals(**(idle | {"idle": 700.0}), config={"stage": "ppo"}))


def test_no_change_is_offered_that_the_run_cannot_make():
    """One to more steps than planned, or to a rate of 0 where the config names none."""
    rises = changed("eval_loss", lambda s, v: np.array([1.6, 1.5, 1.45, 1.52, 1.6, 1.7]))
    assert found(vitals(rises, step=60))["evaluation_rises"].change == {"max_steps": 66}
    assert found(vitals(rises, step=118))["evaluation_rises"].change == {}
    leaps = changed("loss", lambda s, v: np.where(s < 60, v, 9.0))
    assert found(vitals(leaps))["diverged"].change == {"learning_rate": 2e-5}
    unknown = found(vitals(leaps, learning_rate=0.0))["diverged"]
    assert unknown.change == {}
    assert unknown.message.endswith("the learning rate is too high.")
    assert unknown.fix.startswith("Lower it to a tenth;")

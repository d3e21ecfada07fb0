"""What a live run is told to change holds from the next step on, is written down, and is done again when asked."""

import json
import math
import shutil
from types import SimpleNamespace

import pytest
import torch

from llf_core.runs import Checkpoints, RunReader, RunWriter, read_status, send_request, status
from llf_core.runs.config_file import run_config
from llf_core.runs.control import Change, check_changes, read_changes, write_replay
from llf_core.stages.base.loop import TrainingLoop
from llf_core.training.callbacks import SamplePrompts
from llf_core.training.metrics_callback import MetricsCallback
from llf_core.training.session import run_attempt
from tests.core.training.test_session import events, losses, next_attempt, stop_at


@pytest.fixture
def at_steps(monkeypatch):
    """Drops requests into a run when a step has been made: `{step: [(type, args), …]}`."""

    def set_requests(folder, requests):
        original = MetricsCallback.on_step_end

        def on_step_end(self, args, state, control, **kwargs):
            if self.writer.folder.path == folder.path:
                for kind, arguments in requests.pop(state.global_step, ()):
                    send_request(folder, kind, arguments, by="test")
            original(self, args, state, control, **kwargs)

        monkeypatch.setattr(MetricsCallback, "on_step_end", on_step_end)

    return set_requests


def rates(folder):
    columns = RunReader(folder).metrics()
    return dict(zip(columns.steps("learning_rate").tolist(), columns.values("learning_rate").tolist(), strict=True))


def linear(peak, step, total):
    """The rate of a step of a schedule without warm-up that falls to 0, by hand."""
    return peak * (total - (step - 1)) / total


def test_a_learning_rate_holds_from_the_next_step_on(make_run, at_steps):
    folder = make_run(learning_rate=1e-2, max_steps=6, lr_scheduler_type="linear")
    at_steps(folder, {3: [("set", {"learning_rate": 1e-3})]})
    assert run_attempt(folder, 1) == 0
    expected = {step: linear(1e-2 if step <= 3 else 1e-3, step, 6) for step in range(1, 7)}
    assert rates(folder) == pytest.approx(expected, rel=1e-12)
    (steered,) = events(folder, "steered")
    assert (steered["step"], steered["changes"]) == (3, {"learning_rate": 1e-3})
    (answer,) = events(folder, "answer")
    assert answer["ok"] is True
    assert answer["message"] == steered["says"]
    assert "0.01 → 1e-3 from step 4 on" in answer["message"]


@pytest.mark.parametrize("name", ["linear", "cosine", "warmup_stable_decay", "constant"])
def test_the_plan_of_the_schedule_is_what_is_logged_later(make_run, at_steps, name):
    folder = make_run(learning_rate=1e-2, max_steps=8, lr_scheduler_type=name, warmup_steps=2)
    at_steps(folder, {3: [("set", {"learning_rate": 1e-3})], 5: [("set", {"max_steps": 10})]})
    assert run_attempt(folder, 1) == 0
    first, second, third = (dict(zip(one["steps"], one["rates"], strict=True)) for one in events(folder, "schedule"))
    assert (list(first), list(second), list(third)) == ([*range(1, 9)], [*range(4, 9)], [*range(6, 11)])
    found = rates(folder)
    for plan, last in ((first, 3), (second, 5), (third, 10)):
        assert {step: rate for step, rate in plan.items() if step <= last} == pytest.approx(
            {step: rate for step, rate in found.items() if min(plan) <= step <= last}, rel=1e-12
        )


def test_a_step_whose_gradients_overflowed_leaves_the_plan_where_it_was():
    """After four steps, two of them skipped by float16's scaler, the fifth is made with the third rate of the plan."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 10)
    for _ in range(2):
        optimizer.step()
        schedule.step()
    loop = SimpleNamespace(lr_scheduler=schedule, state=SimpleNamespace(global_step=4, max_steps=6))
    steps, planned = TrainingLoop.planned_rates(loop)
    assert steps == [5, 6]
    assert planned == pytest.approx([0.8, 0.7])
    assert planned[0] == pytest.approx(optimizer.param_groups[0]["lr"])


def test_a_schedule_that_follows_the_evaluation_has_no_plan(make_run):
    folder = make_run(
        learning_rate=1e-2, max_steps=2, lr_scheduler_type="reduce_lr_on_plateau", val_size=0.2, eval_strategy="steps",
        eval_steps=1, metric_for_best_model="loss",
    )  # fmt: skip
    assert run_attempt(folder, 1) == 0
    assert events(folder, "schedule") == []


def test_groups_of_parameters_keep_their_proportions(make_run, at_steps, monkeypatch):
    """As LoRA+ has them: two rates, of which one is a multiple of the other."""
    from llf_core.training.trainer import RunTrainer

    def create_optimizer(self, model=None):
        trained = [one for one in self.model.parameters() if one.requires_grad]
        groups = [{"params": trained[::2]}, {"params": trained[1::2], "lr": 16 * self.args.learning_rate}]
        self.optimizer = torch.optim.AdamW(groups, lr=self.args.learning_rate)
        return self.optimizer

    seen = []
    original = MetricsCallback.on_log

    def on_log(self, *arguments, **kwargs):
        seen.append([group["lr"] for group in self.trainer.optimizer.param_groups])
        original(self, *arguments, **kwargs)

    monkeypatch.setattr(RunTrainer, "create_optimizer", create_optimizer)
    monkeypatch.setattr(MetricsCallback, "on_log", on_log)
    folder = make_run(learning_rate=1e-3, max_steps=4, lr_scheduler_type="constant")
    at_steps(folder, {2: [("set", {"learning_rate": 3e-4})]})
    assert run_attempt(folder, 1) == 0
    assert seen[1] == pytest.approx([3e-4, 16 * 3e-4])
    assert seen[0] == pytest.approx([1e-3, 16e-3])


@pytest.mark.parametrize(("asked", "epochs"), [(4, None), (10, None), (20, None), (3, 1.0), (14, 1.0)])
def test_a_run_ends_where_it_is_told_to_with_the_schedule_of_one_that_was_so_planned(make_run, at_steps, asked, epochs):
    """24 examples in batches of 4: an epoch has 6 steps, so most of these end in another epoch."""
    planned = 6
    folder = make_run(
        learning_rate=1e-2,
        lr_scheduler_type="linear",
        max_steps=planned if epochs is None else -1,
        num_train_epochs=epochs or 3.0,
    )
    at_steps(folder, {2: [("set", {"max_steps": asked})]})
    assert run_attempt(folder, 1) == 0
    final = read_status(folder)
    assert (final.state, final.step, final.total) == ("finished", asked, asked)
    expected = {step: linear(1e-2, step, planned if step <= 2 else asked) for step in range(1, asked + 1)}
    assert rates(folder) == pytest.approx(expected, rel=1e-12)


def test_a_run_that_is_told_to_go_on_makes_the_losses_of_a_longer_one(trained, make_run, at_steps):
    same = {"lr_scheduler_type": "constant"}
    longer, _ = trained(max_steps=11, **same)
    folder = make_run(max_steps=6, **same)
    at_steps(folder, {6: [("set", {"max_steps": 11})]})  # at the last moment
    assert run_attempt(folder, 1) == 0
    assert losses(folder) == losses(longer)


def test_a_schedule_of_three_parts_is_planned_anew(make_run, at_steps):
    folder = make_run(learning_rate=1e-2, max_steps=6, lr_scheduler_type="warmup_stable_decay", warmup_steps=0)
    at_steps(folder, {1: [("set", {"max_steps": 12})]})
    assert run_attempt(folder, 1) == 0
    found = rates(folder)
    # Decay takes two thirds of the steps: of 12 the last 8.
    assert [found[step] == 1e-2 for step in range(1, 13)] == [True] * 5 + [False] * 7


def test_a_stopped_run_goes_on_as_it_was_told_to_the_last_bit(make_run, at_steps, monkeypatch):
    told = {2: [("set", {"learning_rate": 3e-3})], 3: [("set", {"max_steps": 9})]}
    whole, part = (make_run(max_steps=6, lora_dropout=0.1) for _ in range(2))
    with monkeypatch.context():
        at_steps(whole, {step: list(one) for step, one in told.items()})
        run_attempt(whole, 1)
    with monkeypatch.context() as patch:
        at_steps(part, {step: list(one) for step, one in told.items()})
        stop_at(patch, part, 5)
        run_attempt(part, 1)
    assert next_attempt(part) == 0
    assert len(losses(part)) == 9
    assert losses(part) == losses(whole)


def test_a_floor_of_the_schedule_moves_with_its_peak_also_after_a_stop(make_run, at_steps, monkeypatch):
    """The cosine's floor is a share of its peak, which the Trainer takes from the optimizer when it plans."""
    told = {2: [("set", {"learning_rate": 1e-3})], 3: [("set", {"max_steps": 9})]}
    floor = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": 2e-3}, "learning_rate": 1e-2}
    folder = make_run(max_steps=6, **floor)
    with monkeypatch.context() as patch:
        at_steps(folder, told)
        stop_at(patch, folder, 5)
        run_attempt(folder, 1)
    assert next_attempt(folder) == 0
    expected = {}
    for step in range(1, 10):
        peak, total = 1e-2 if step <= 2 else 1e-3, 6 if step <= 3 else 9
        wave = 0.5 * (1 + math.cos(math.pi * (step - 1) / total))
        expected[step] = peak * (0.2 + 0.8 * wave)
    assert rates(folder) == pytest.approx(expected, rel=1e-9)


def test_a_run_that_began_at_rate_zero_can_be_given_one(make_run, at_steps):
    folder = make_run(learning_rate=0.0, max_steps=4, lr_scheduler_type="constant")
    at_steps(folder, {2: [("set", {"learning_rate": 1e-3})]})
    assert run_attempt(folder, 1) == 0
    assert rates(folder) == {1: 0.0, 2: 0.0, 3: 1e-3, 4: 1e-3}
    found = losses(folder)
    assert len(found) == 4


def test_what_was_told_after_the_checkpoint_is_done_again(make_run, at_steps, monkeypatch):
    """A run that dies goes on from a checkpoint before the change."""
    whole = make_run(max_steps=8, save_steps=3)
    at_steps(whole, {4: [("set", {"learning_rate": 3e-3})]})
    run_attempt(whole, 1)

    dies = make_run(max_steps=8, save_steps=3)
    at_steps(dies, {4: [("set", {"learning_rate": 3e-3})]})
    original = MetricsCallback.on_step_begin

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 5:
            raise RuntimeError("the power is gone")
        return original(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(MetricsCallback, "on_step_begin", on_step_begin)
        assert run_attempt(dies, 1) == 1
    assert Checkpoints(dies).list()[-1] == 3
    assert next_attempt(dies) == 0
    assert losses(dies) == losses(whole)
    first, second = events(dies, "steered")
    assert (first["id"], first["step"], first["attempt"]) == (second["id"], second["step"], 1)
    assert (second["attempt"], second["again"]) == (2, True)
    assert read_changes(dies) == [Change(4, {"learning_rate": 3e-3}, first["id"])]


def test_a_new_word_takes_the_place_of_what_would_be_done_again(make_run, at_steps, monkeypatch):
    folder = make_run(max_steps=8, lr_scheduler_type="constant", save_steps=3)
    at_steps(folder, {5: [("set", {"learning_rate": 3e-3})]})
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 6)
        run_attempt(folder, 1)
    shutil.rmtree(folder.checkpoints / "checkpoint-6")  # so that it goes on from before the change
    status.begin_attempt(folder, 2, step=3)
    at_steps(folder, {4: [("set", {"learning_rate": 5e-4})]})
    assert run_attempt(folder, 2) == 0
    found = rates(folder)
    assert [found[step] for step in range(4, 9)] == [1e-3, 5e-4, 5e-4, 5e-4, 5e-4]
    assert [change.changes for change in read_changes(folder)] == [{"learning_rate": 5e-4}]


def test_a_replay_makes_the_same_curve(make_run, at_steps):
    folder = make_run(max_steps=6, val_size=0.25, lora_dropout=0.1)
    at_steps(folder, {2: [("set", {"learning_rate": 2e-3}), ("evaluate", {})], 4: [("set", {"max_steps": 8})]})
    assert run_attempt(folder, 1) == 0
    again = make_run(max_steps=6, val_size=0.25, lora_dropout=0.1)
    write_replay(again, read_changes(folder))
    assert run_attempt(again, 1) == 0
    assert losses(again) == losses(folder)
    assert len(losses(again)) == 8
    assert [one["step"] for one in events(again, "evaluation")] == [one["step"] for one in events(folder, "evaluation")]
    assert read_changes(again) == read_changes(folder)


def test_an_evaluation_comes_now_and_is_answered(make_run, at_steps):
    folder = make_run(max_steps=4, val_size=0.25)
    at_steps(folder, {2: [("evaluate", {})]})
    assert run_attempt(folder, 1) == 0
    evaluated = [one["step"] for one in events(folder, "evaluation")]
    assert 2 in evaluated
    (answer,) = events(folder, "answer")
    loss = next(one["values"]["eval_loss"] for one in events(folder, "evaluation") if one["step"] == 2)
    assert answer["message"] == f"The evaluation loss is {loss:.4f} at step 2."


REFUSED = [
    ("evaluate", {}, "The run has no evaluation data"),
    ("sample", {}, "No prompts are watched"),
    ("set", {}, "No change was given"),
    ("set", {"lora_rank": 8}, "'lora_rank' cannot be changed in a live run"),
    ("set", {"learning_rate": 0}, "learning_rate is 0"),
    ("set", {"learning_rate": "fast"}, "learning_rate is fast"),
    ("set", {"learning_rate": 1e-3, "max_steps": 1}, "The run is already at step 2"),
    ("set", {"max_steps": 5, "evaluate": True}, "The run has no evaluation data"),
    ("set", {"max_steps": 2.5}, "max_steps is 2.5"),
    ("set", {"watch": " "}, "The prompt is blank"),
]


def test_what_cannot_be_done_is_refused_with_a_reason_and_changes_nothing(trained, make_run, at_steps):
    plain, _ = trained()
    folder = make_run()
    at_steps(folder, {2: [(kind, args) for kind, args, _ in REFUSED]})
    assert run_attempt(folder, 1) == 0
    answers = events(folder, "answer")
    for (_, _, reason), answer in zip(REFUSED, answers, strict=True):
        assert answer["ok"] is False
        assert answer["message"].startswith(reason)
    assert events(folder, "steered") == []
    assert losses(folder) == losses(plain)
    assert rates(folder) == rates(plain)


# -- watched prompts ------------------------------------------------------------------------------------
def samples(folder):
    return [(one["step"], one["of"], one["prompt"]) for one in RunReader(folder).samples()]


def test_samples_that_anybody_wrote_are_read_as_far_as_they_name_a_prompt(make_run):
    folder = make_run(watched_prompts="Say hi.")
    folder.samples.write_text('{"of": "base"}\n{"of": "base", "prompt": ["Say hi."]}\n')
    watched = SamplePrompts(folder, RunWriter(folder, 1), run_config(folder), None, None)
    assert (watched.prompts, watched.last) == (["Say hi."], -1)


def test_watched_prompts_are_answered_by_the_base_once_and_at_every_checkpoint(trained):
    plain, _ = trained()
    folder, code = trained(watched_prompts=["What is a lamp?", "Say hi."], watched_tokens=5)
    assert code == 0
    lamp, hi = "What is a lamp?", "Say hi."
    assert samples(folder) == [
        (0, "base", lamp),
        (0, "base", hi),
        *((step, "tuned", prompt) for step in (2, 4, 6) for prompt in (lamp, hi)),
    ]
    assert losses(folder) == losses(plain)  # no random number was drawn


@pytest.mark.parametrize(("method", "first"), [("lora", ["loss", "base"]), ("full", ["base", "loss"])])
def test_the_base_waits_for_the_first_loss_where_it_can(make_run, monkeypatch, method, first):
    """A new adapter is turned off as well after a step as before it; weights that are trained are not the base's."""
    order = []
    metric, sample = RunWriter.metric, RunWriter.sample

    def noted_metric(self, step, values):
        order.append(next((name for name in ("loss",) if name in values), "other"))
        metric(self, step, values)

    def noted_sample(self, **fields):
        order.append(fields["of"])
        sample(self, **fields)

    monkeypatch.setattr(RunWriter, "metric", noted_metric)
    monkeypatch.setattr(RunWriter, "sample", noted_sample)
    folder = make_run(max_steps=2, finetuning_type=method, watched_prompts="Say hi.", watched_tokens=4)
    assert run_attempt(folder, 1) == 0
    assert order[:2] == first
    assert samples(folder) == [(0, "base", "Say hi."), (2, "tuned", "Say hi.")]
    seconds = RunReader(folder).metrics().values("step_seconds")
    assert seconds[1] < 1  # answering is not training


def test_a_prompt_that_is_added_is_answered_at_once_beside_the_base_and_after_a_stop_too(
    make_run, at_steps, monkeypatch
):
    folder = make_run(max_steps=6, watched_tokens=5)
    at_steps(folder, {3: [("set", {"watch": "Say hi."}), ("set", {"watch": "Say hi."})]})
    with monkeypatch.context() as patch:
        stop_at(patch, folder, 5)
        run_attempt(folder, 1)
    assert samples(folder) == [
        (3, "base", "Say hi."),
        (3, "tuned", "Say hi."),
        (4, "tuned", "Say hi."),
        (5, "tuned", "Say hi."),
    ]
    assert next_attempt(folder) == 0
    assert samples(folder)[4:] == [(6, "tuned", "Say hi.")]
    assert [one["message"] for one in events(folder, "answer")][1] == "The prompt is already watched."


def test_the_base_answers_in_the_middle_of_a_run_as_before_it(make_run, at_steps):
    """An adapter is turned off, in the fast forms of its layers too."""
    said = []
    for watched, told in (("Say hi.", {}), (None, {4: [("set", {"watch": "Say hi."})]})):
        folder = make_run(max_steps=5, learning_rate=5e-2, watched_prompts=watched, watched_tokens=12)
        at_steps(folder, dict(told))
        assert run_attempt(folder, 1) == 0
        found = RunReader(folder).samples()
        said.append(next(one["text"] for one in found if one["of"] == "base"))
        assert found[-1]["text"] != said[-1]  # what was learned shows
    assert said[0] == said[1]


def test_a_prompt_that_cannot_be_answered_ends_no_run(make_run, at_steps, monkeypatch):
    def fall(*_, **__):
        raise RuntimeError("no memory")

    monkeypatch.setattr("llf_core.training.callbacks.generate", fall)
    folder = make_run(max_steps=4, watched_prompts="Say hi.")
    at_steps(folder, {1: [("set", {"watch": "Another."}), ("sample", {})]})
    assert run_attempt(folder, 1) == 0
    assert {one["key"] for one in events(folder, "warning")} == {"watched_prompts"}
    assert "no memory" in events(folder, "warning")[0]["message"]
    assert samples(folder) == []


def test_samples_are_made_when_asked(make_run, at_steps):
    folder = make_run(max_steps=4, save_strategy="no", watched_prompts="Say hi.", watched_tokens=5)
    at_steps(folder, {1: [("sample", {})]})
    assert run_attempt(folder, 1) == 0
    assert [step for step, *_ in samples(folder)] == [0, 1, 4]


def test_the_base_of_a_lora_run_answers_as_the_untrained_model(trained):
    one, _ = trained(watched_prompts="Say hi.", watched_tokens=8, max_steps=4, learning_rate=5e-2)
    other, _ = trained(watched_prompts="Say hi.", watched_tokens=8, max_steps=2, finetuning_type="full")
    first = [next(s["text"] for s in RunReader(f).samples() if s["of"] == "base") for f in (one, other)]
    assert first[0] == first[1]
    assert "base" not in [s["of"] for s in RunReader(one).samples()][1:]


def test_watched_prompts_and_answers_have_the_system_prompt_of_the_training_data(trained, monkeypatch):
    """Otherwise they would show the model on prompts that it was not trained for."""
    import llf_core.generation
    from llf_core.evaluation.answers import answer

    whole, asked = llf_core.generation.generate, []

    def record(model, tokenizer, prompts, **options):
        asked.append((list(prompts), options["system"]))
        return whole(model, tokenizer, prompts, **options)

    monkeypatch.setattr("llf_core.training.callbacks.generate", record)
    monkeypatch.setattr("llf_core.generation.generate", record)
    folder, _ = trained(watched_prompts="Say hi.", watched_tokens=4, max_steps=2, default_system="Add.")
    assert asked == [(["Say hi."], "Add.")] * 2  # of the base, and at the end
    answer(folder, ["Say ho."], 4)
    assert asked[2:] == [(["Say ho."], "Add.")] * 2


# -- the journal ----------------------------------------------------------------------------------------
def test_a_change_of_a_later_version_is_left_out(make_run):
    folder = make_run()
    lines = [
        {"v": 1, "type": "steered", "step": 3, "changes": {"weather": "fair"}, "id": "a"},
        {"v": 1, "type": "steered", "step": "three", "changes": {"learning_rate": 1e-3}, "id": "b"},
        {"v": 1, "type": "steered", "step": 3, "changes": {"learning_rate": 1e-3}, "id": "c"},
    ]
    with folder.events.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    assert read_changes(folder) == [Change(3, {"learning_rate": 1e-3}, "c")]


@pytest.mark.parametrize(
    "bad", [{"learning_rate": True}, {"learning_rate": float("nan")}, {"max_steps": float("inf")}, {"max_steps": True},
            {"evaluate": 1}, {"watch": 3}, {"watch": "x" * 4001}, {"learning_rate": 2.0}]
)  # fmt: skip
def test_values_out_of_range_are_refused(bad):
    with pytest.raises(ValueError, match="Expected"):
        check_changes(bad)


def test_a_reward_model_has_nothing_to_watch(make_run, at_steps, tmp_path):
    pairs = tmp_path / "pairs.json"
    row = {"instruction": "What is 1 plus 1?", "input": "", "chosen": "It is 2.", "rejected": "No idea."}
    pairs.write_text(json.dumps([row] * 4))
    folder = make_run(stage="rm", dataset=str(pairs), max_steps=2)
    at_steps(folder, {1: [("set", {"watch": "What is 2 plus 2?"})]})
    assert run_attempt(folder, 1) == 0
    (answer,) = events(folder, "answer")
    assert answer["ok"] is False
    assert answer["message"] == "A reward model does not generate text, so there are no prompts to watch."


def test_bad_requests_are_answered_and_end_no_run(make_run, monkeypatch):
    """One hundred of them lie in `control/` before the third step; the losses are those of a run without any."""
    plain = make_run()
    assert run_attempt(plain, 1) == 0
    folder = make_run()
    numbers = ["9" * 400, "-" + "9" * 400, "1" + "0" * 5000, "NaN", "Infinity", "-Infinity", "1e999", "true", "null"]
    others = ['"3"', '"\\ud800"', "[]", "[1]", "{}", '{"a": ' * 300 + "1" + "}" * 300, "0", "-1", "0.5", "5e-324"]
    names = ["max_steps", "learning_rate", "watch", "evaluate", "\\ud800"]
    texts = [
        f'{{"v": 1, "id": "i", "type": "set", "args": {{"{n}": {v}}}}}' for n in names for v in [*numbers, *others]
    ]
    texts += ["", "{", "[]", "null", "[" * 60_000, '{"v": 1, "type": "set"}', '{"v": 1, "type": "set", "args": []}']
    texts += [f'{{"v": 1, "type": "checkpoint", "id": {v}, "by": {v}, "time": {v}}}' for v in others]
    harmless = ('{"evaluate": true}', '{"learning_rate": 0.5}', '{"watch": "3"}', '{"watch": "\\ud800"}')
    texts = [text for text in texts if not any(one in text for one in harmless)]
    original = MetricsCallback.on_step_end

    def on_step_end(self, args, state, control, **kwargs):
        if self.writer.folder.path == folder.path and state.global_step == 2:
            for number, text in enumerate(texts):
                (folder.control / f"{number}-a.json").write_text(text)
        original(self, args, state, control, **kwargs)

    monkeypatch.setattr(MetricsCallback, "on_step_end", on_step_end)
    assert run_attempt(folder, 1) == 0
    assert read_status(folder).state == "finished"
    assert losses(folder) == losses(plain)
    answers = events(folder, "answer")
    assert len(answers) == len(texts)
    assert all(one["message"].endswith(".") and len(one["message"]) < 250 for one in answers)
    assert {one["ok"] for one in answers if one["request"] != "checkpoint"} == {False}
    assert not list(folder.control.iterdir())

"""Evaluations: losses against a plain loop in float64, and what is kept, reused and refused."""

import json
import math
import resource

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
from typer.testing import CliRunner

from llf_core.chat.target import TargetError, find_target, load_base
from llf_core.cli import app
from llf_core.config import ConfigError, RunConfig
from llf_core.data.errors import DataError
from llf_core.data.preparation import prepare
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.evaluate import _names, evaluate, with_base
from llf_core.evaluation.examples import ExampleReader
from llf_core.evaluation.likelihood import batches
from llf_core.evaluation.measure_targets import measure_targets, text_bytes, token_texts
from llf_core.evaluation.request import VALIDATION, EvaluationRequest
from llf_core.evaluation.worker_process import no_progress
from llf_core.launch.start import RowsError
from llf_core.runs.evaluations import examples_of, results_of, token_losses_of
from llf_core.user_error import UserError
from tests.tiny import save_tiny_llava


@pytest.fixture
def run(trained):
    """A run that has learned much, with 6 examples held out."""
    folder, code = trained(max_steps=12, val_size=6, learning_rate=2e-2, infer_dtype="float32")
    assert code == 0
    return folder


def plain_losses(run, tuned):
    """Sum of losses, tokens and correct ones of each held-out example, in float64, one after the other."""
    config = RunConfig.load(run.config)
    base = config.model.model_name_or_path
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    if tuned:
        model = PeftModel.from_pretrained(model, run.output)
    model.to(torch.float64).eval()
    found = {}
    for row in prepare(config, tokenizer).eval:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        with torch.no_grad():
            logprobs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        kept = labels != -100
        picked = logprobs[kept].gather(1, labels[kept, None])[:, 0]
        found[row["index"]] = (
            -picked.sum().item(),
            int(kept.sum()),
            int((logprobs[kept].argmax(1) == labels[kept]).sum()),
        )
    return found


def test_losses_are_those_of_a_plain_loop_in_float64(run, warm_python):
    told, complete = [], []
    base, tuned = evaluate(
        [f"{run.id}@base", run.id],
        progress=lambda *said: told.append(said),
        on_result=lambda *given: complete.append(given),
    )
    assert [(number, one.id) for number, one in complete] == [(0, base.id), (1, tuned.id)]
    assert {one.id for one in results_of(run)} == {base.id, tuned.id}
    assert (base.target.step, tuned.target.step, tuned.target.run) == (None, 12, run.id)
    assert base.data == tuned.data
    assert base.data.examples == 6
    for result, is_tuned in ((base, False), (tuned, True)):
        expected = plain_losses(run, is_tuned)
        found = examples_of(result)
        assert {one.index for one in found} == set(expected)
        for one in found:
            nll, tokens, correct = expected[one.index]
            assert one.nll == pytest.approx(nll, rel=2e-6)
            assert (one.tokens, one.correct) == (tokens, correct)
        total, count = sum(nll for nll, _, _ in expected.values()), sum(tokens for _, tokens, _ in expected.values())
        values = {one.name: one for one in result.metrics}
        assert values["loss"].value == pytest.approx(total / count, rel=2e-6)
        assert values["perplexity"].value == pytest.approx(math.exp(total / count), rel=1e-5)
        assert values["perplexity"].low < values["perplexity"].value < values["perplexity"].high
        assert values["perplexity"].by_source == {found[0].source: values["perplexity"].value}
        size = sum(len((one.reference + "\n").encode()) for one in found)
        assert values["bits_per_byte"].value == pytest.approx(total / math.log(2) / size, rel=0.2)
        assert values["token_accuracy"].value == sum(one.correct for one in found) / count
        for losses, one in zip(token_losses_of(result), found, strict=True):
            assert losses.key == one.key
            assert sum(losses.losses) == pytest.approx(one.nll, abs=1e-4)
            assert "".join(losses.tokens).startswith(one.reference)
    assert tuned.metric("loss").value < base.metric("loss").value
    assert ("Loss of tiny", 6, 6) in told


def count_letters(answer, instruction):
    """A metric of a cell."""
    return len(answer) / len(instruction)


def test_answers_are_greedy_and_nothing_is_measured_twice(run, warm_python):
    rows = [{"instruction": f"What is {i} plus 1?", "output": f"It is number {i}."} for i in range(5)]
    told = []
    asked = {"metrics": ["exact_match", "rouge", count_letters], "max_new_tokens": 6, "limit": 4}
    (result,) = evaluate([run.id], rows, **asked)
    found = examples_of(result)
    assert [(one.index, one.reference) for one in found] == [(i, f"It is number {i}.") for i in range(4)]
    base = RunConfig.load(run.config).model.model_name_or_path
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), run.output)
    tokenizer = AutoTokenizer.from_pretrained(run.output)
    for one in found:
        ids = tokenizer.apply_chat_template(
            list(one.prompt), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        made = model.generate(**ids, max_new_tokens=6, do_sample=False)[0, ids["input_ids"].shape[1] :]
        assert one.answer == tokenizer.decode(made, skip_special_tokens=True)
        assert one.scores["exact_match"] == float(one.answer.strip() == one.reference)
        assert one.scores["count_letters"] == len(one.answer) / len(one.prompt[-1]["content"])
    values = {one.name: one for one in result.metrics}
    assert values["rougeL"].value == pytest.approx(sum(one.scores["rougeL"] for one in found) / 4)
    assert result.settings["metrics"][0] == "exact_match"

    same = evaluate([run.id], rows, progress=lambda what, *_: told.append(what), **asked)
    assert [one.id for one in same] == [result.id]
    assert "Loading the weights" not in told
    base_id = evaluate([f"{run.id}@base"], rows)[0].id
    shared = list((run.home / "evaluations").glob("*/*/evaluation.json"))
    assert len(shared) == 1, "of the base, other runs may use the result"
    assert {one.id for one in results_of(run)} == {result.id, base_id}


def waits_if_told(answer):
    """A metric of a cell, which holds the process before it has a result."""
    import os
    import time

    if "LLF_TEST_WAIT" in os.environ:
        time.sleep(3600)
    return float(len(answer))


def test_what_is_complete_stays_when_the_process_is_killed_or_interrupted(run, monkeypatch, request):
    targets, asked = [f"{run.id}@base", run.id], {"metrics": [waits_if_told], "max_new_tokens": 2}
    monkeypatch.setenv("LLF_FAULT", "result.written:3")  # the base's result is written, then its copy for other runs
    with pytest.raises(RuntimeError, match="was terminated by SIGKILL"):
        evaluate(targets, **asked)
    (complete,) = results_of(run)
    assert complete.target.label == "base model"

    def interrupt(what, done, total):
        if what.startswith("Loss of"):
            raise KeyboardInterrupt

    monkeypatch.delenv("LLF_FAULT")
    monkeypatch.setenv("LLF_TEST_WAIT", "1")
    request.getfixturevalue("warm_python")
    heard = []
    with pytest.raises(KeyboardInterrupt):
        evaluate(targets, progress=interrupt, on_result=lambda _, result: heard.append(result), **asked)
    assert [one.id for one in heard] == [complete.id]
    assert [one.id for one in results_of(run)] == [complete.id]


def test_a_data_set_that_is_named_twice_is_read_once(tmp_path):
    """Examples that count twice would make the interval too narrow."""
    assert _names("a, b,a", None) == ("a", "b")
    assert _names([tmp_path, str(tmp_path), "b"], None) == (str(tmp_path), "b")
    with pytest.raises(EvaluationError, match="validation stands beside other data sets"):
        _names("validation,a", None)


def ask(run, on=(VALIDATION,), **changes):
    request = EvaluationRequest((find_target(run.id), find_target(f"{run.id}@base")), on, **changes)
    measure_targets(request, no_progress, lambda *_: None)


@pytest.fixture
def no_model(monkeypatch):
    """Fails a test in which a model is loaded."""
    monkeypatch.setattr("llf_core.evaluation.loaded_targets.load_base", lambda *_: pytest.fail("a model is loaded"))


@pytest.mark.usefixtures("no_model")
def test_bad_data_is_a_sentence_before_a_model_is_loaded(trained, tmp_path):
    folder, _ = trained(max_steps=1)

    def written(name, text):
        path = tmp_path / name
        path.write_text(text)
        return (str(path),)

    with pytest.raises(EvaluationError, match="The run has no validation data"):
        ask(folder)
    with pytest.raises(DataError, match=r"nothing\.json"):
        ask(folder, (str(tmp_path / "nothing.json"),))
    with pytest.raises(DataError, match="is empty"):
        ask(folder, written("empty.json", "[]"))
    with pytest.raises(EvaluationError, match="is plain text without prompts"):
        ask(folder, written("texts.jsonl", '{"text": "It is number 1."}\n'), metrics=("exact_match",))
    with pytest.raises(DataError, match="a response is empty"):
        ask(folder, written("asked.jsonl", '{"instruction": "What is 1?", "output": ""}\n'), metrics=("exact_match",))
    long, _ = trained(max_steps=1, cutoff_strategy="drop")
    with pytest.raises(DataError, match="more than cutoff_len 128"):
        ask(long, written("long.json", json.dumps([{"instruction": "What is 1? " * 200, "output": "It is 1."}])))


def test_bad_requests_are_sentences(trained, make_run):
    folder, _ = trained(stage="rm", dataset="llf_demo_pairs", max_steps=1)
    for targets, message in [
        ([], "There is nothing to measure"),
        ([folder.id], "trained a reward model"),
        ([make_run().id], "neither a result nor a checkpoint"),
        (["nothing"], "No model is called 'nothing'"),
        (["owner/name"], "None of the targets is a run"),
    ]:
        with pytest.raises((TargetError, EvaluationError), match=message):
            evaluate(targets)
    for limit in (0, 2.5, "3"):
        with pytest.raises(EvaluationError, match=rf"limit is {limit!r}\. Expected an integer of at least 1"):
            evaluate(["owner/name"], "llf_demo", limit=limit)
    with pytest.raises(ConfigError, match="Unknown metric 'rogue'"):
        evaluate(["owner/name"], "llf_demo", metrics=["rogue"])
    with pytest.raises(RowsError, match="no rows"):
        evaluate(["owner/name"], [])


def test_another_tokenizer_reads_the_records_that_were_held_out(trained, tmp_path):
    folder, _ = trained(max_steps=1, val_size=6)
    config = RunConfig.load(folder.config)
    request = EvaluationRequest((), (VALIDATION,))
    reader = ExampleReader(request, config, no_progress)
    own = AutoTokenizer.from_pretrained(config.model.model_name_or_path)
    other = AutoTokenizer.from_pretrained(config.model.model_name_or_path)
    other.add_tokens(["number"])
    first, second = (reader.read(one, config, None) for one in (own, other))
    held = set(prepare(config, own).eval["index"])
    assert {one.index for one in first.examples} == {one.index for one in second.examples} == held
    assert first.fingerprint == second.fingerprint
    assert first.rendering != second.rendering


def test_batches_hold_sequences_of_similar_length():
    lengths = [5, 90, 100, 95, 7, 300, 5, 100]
    # At most 300 tokens; 90 and 7 stay apart, since more than a tenth would be padding, unless there are only a few.
    assert list(batches(lengths, 300)) == [[5], [2, 7, 3], [1], [4, 0, 6]]
    assert [[lengths[n] for n in batch] for batch in batches(lengths, 300, equal=True)] == [
        [300], [100, 100], [95], [90], [7], [5, 5],
    ]  # fmt: skip


def test_the_text_of_tokens_is_that_of_the_sequence(tiny_tokenizer):
    tokenizer = tiny_tokenizer
    text = "Grüße, 世界! 👩‍🚀 fine"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    places = range(2, len(ids))
    texts = token_texts(tokenizer, ids, places)
    assert len(texts) == len(places)
    assert "".join(texts) == tokenizer.decode(ids)[len(tokenizer.decode(ids[:2])) :]
    assert text_bytes(tokenizer, ids, range(len(ids))) == len(text.encode())
    assert text_bytes(tokenizer, [*ids, tokenizer.eos_token_id], range(len(ids) + 1)) == len(text.encode())


def test_the_command_compares_a_run_with_its_base(trained, warm_python):
    folder, _ = trained(max_steps=12, val_size=12, learning_rate=2e-2, infer_dtype="float32")
    command = CliRunner()
    told = command.invoke(app, ["eval", folder.id, "--metric", "exact_match,chrf", "--max-new-tokens", "6", "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    base, tuned = found["results"]
    assert (base["target"]["label"], tuned["target"]["run"]) == ("base model", folder.id)
    (loss,) = [one for one in found["differences"] if one["metric"] == "loss"]
    values = [next(one["value"] for one in result["metrics"] if one["name"] == "loss") for result in (base, tuned)]
    assert (loss["verdict"], loss["count"]) == ("better", 12)
    assert loss["mean"] == pytest.approx(values[1] - values[0])
    assert loss["low"] < loss["mean"] < loss["high"] < 0
    (chrf,) = [one for one in found["differences"] if one["metric"] == "chrf"]
    assert chrf["mean"] == pytest.approx(chrf["tuned"] - chrf["base"])

    told = command.invoke(app, ["eval", folder.id, "--metric", "exact_match,chrf", "--max-new-tokens", "6"])
    assert told.exit_code == 0, told.output
    assert "12 examples of" in told.stdout
    assert "Loss: better: -" in told.stdout
    assert "Worst examples of tiny by Exact match" in told.stdout
    refused = command.invoke(app, ["eval", folder.id, "--on", "nothing.json"])
    assert isinstance(refused.exception, UserError)
    assert "nothing.json" in str(refused.exception)


def test_a_disk_that_fills_while_measuring_leaves_no_half_result(trained, monkeypatch):
    folder, _ = trained(max_steps=1, val_size=12)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def load_and_fill(*arguments):
        base = load_base(*arguments)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        return base

    monkeypatch.setattr("llf_core.evaluation.loaded_targets.load_base", load_and_fill)
    try:
        with pytest.raises(OSError, match="File too large"):
            ask(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(folder.evaluations.iterdir()) == []


def test_data_of_other_kinds_is_measured_on_its_better_answer_or_whole_text(make_run, tmp_path):
    config = RunConfig.load(make_run(stage="dpo", dataset="llf_demo_pairs", val_size=4).config)
    tokenizer = AutoTokenizer.from_pretrained(config.model.model_name_or_path)

    def read(on):
        return ExampleReader(EvaluationRequest((), on, limit=3), config, no_progress).read(tokenizer, config, None)

    for on in ((VALIDATION,), ("llf_demo_pairs",)):
        for one in read(on).examples:
            (part,) = one.parts
            text = tokenizer.decode([label for label in part.labels if label != -100])
            assert text.startswith(one.reference) or one.reference.startswith(text.split("<|im_end|>")[0])
            assert one.prompt[-1]["role"] == "user"
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "It is number 1. " * 60}) + "\n")
    (long,) = read((str(tmp_path / "texts.jsonl"),)).examples
    tokens = tokenizer("It is number 1. " * 60 + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    assert [token for part in long.parts for token in part.ids] == tokens
    assert (len(long.parts), long.prompt, long.reference) == (-(-len(tokens) // 128), (), None)
    assert [part.measured for part in long.parts] == [len(part.ids) - 1 for part in long.parts]


def test_a_vision_model_answers_texts_in_the_form_of_its_own_template(tmp_path, llf_home, warm_python):
    save_tiny_llava(tmp_path / "llava")
    rows = [{"instruction": f"What is {i} plus 1?", "output": f"It is number {i}."} for i in range(2)]
    (result,) = evaluate([str(tmp_path / "llava")], rows, metrics=["exact_match"], max_new_tokens=6)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "llava", dtype="float32").eval()
    processor = AutoProcessor.from_pretrained(tmp_path / "llava")
    found = examples_of(result)
    assert len(found) == 2
    for row, one in zip(rows, found, strict=True):
        parts = [{"role": "user", "content": [{"type": "text", "text": row["instruction"]}]}]
        text = processor.apply_chat_template(parts, add_generation_prompt=True)
        assert row["instruction"] in text
        inputs = processor(text=[text], return_tensors="pt")
        made = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert one.answer == processor.tokenizer.decode(made, skip_special_tokens=True)


def test_a_single_name_needs_no_list(llf_home, tiny_model_dir):
    for call in (evaluate, with_base):
        with pytest.raises(TargetError, match="no-such-run"):
            call("no-such-run")
    with pytest.raises(ConfigError, match="no_such_metric"):
        evaluate(tiny_model_dir, [{"prompt": "a", "response": "b"}], metrics="no_such_metric")

"""What an inspection says of a data set: counts, lengths, records to look at, tokens, packed rows."""

import json
import subprocess
import sys

import numpy as np
import pytest

from llf_core.config.data import IGNORED
from llf_core.data import prepare
from llf_core.data.align import PEEK_ROWS
from llf_core.data.inspect import Inspection
from llf_core.data.inspect.inspection import readings
from llf_core.data.inspect.notable_records import candidate_cutoffs, cost, histogram
from llf_core.data.load import open_source
from llf_core.data.packing import pack
from llf_core.data.truncation import truncated_lengths
from tests.core.data.templates import DEFAULT_SYSTEM, STRIPS_THINKING

ROWS = [{"instruction": f"Question {number}?", "output": f"The answer {number}."} for number in range(6)]
MARKS = ("<|im_start|>", "<|im_end|>")
LONG = {"instruction": "Name it.", "output": "the sea and the ship " * 12}


@pytest.fixture
def inspect(make_config, write, tokenizer):
    """Inspects rows under some settings."""

    def made(rows, **values):
        write(rows)
        return Inspection.open(make_config(**values), tokenizer)

    return made


def said(turns, state=None):
    return "".join(token[0] for turn in turns for token in turn["tokens"] if state in {None, token[2]})


def test_the_overview_counts_each_set(inspect, write):
    write([*ROWS[:2], {"instruction": "x", "output": ""}], "b.jsonl")
    view = inspect([*ROWS, LONG], dataset="data.jsonl,b.jsonl", cutoff_len=40)
    overview = view.overview()
    first, second = overview["sets"]
    assert (first["dataset"], first["records"], first["examples"], first["cut"], first["dropped"]) == (
        "data.jsonl", 7, 7, 1, 0,
    )  # fmt: skip
    assert (second["dataset"], second["records"], second["examples"], second["dropped"]) == ("b.jsonl", 3, 2, 1)
    assert overview["tokens"] == first["tokens"] + second["tokens"]
    assert overview["trained_tokens"] == first["trained_tokens"] + second["trained_tokens"]
    assert overview["examples"] == 9
    assert 0 < overview["packing_fill"] <= 1


def test_an_example_shows_every_token_with_its_state(inspect, tokenizer):
    view = inspect([*ROWS, LONG], cutoff_len=60)
    whole = view.example(0)
    text = "<|im_start|>user\nQuestion 0?<|im_end|>\n<|im_start|>assistant\nThe answer 0.<|im_end|>\n"
    assert [turn["role"] for turn in whole["turns"]] == ["user", "assistant"]
    assert said(whole["turns"]) == text
    assert said(whole["turns"], "trained") == "The answer 0.<|im_end|>\n"
    ids = [token[1] for turn in whole["turns"] for token in turn["tokens"]]
    assert ids == tokenizer(text).input_ids
    assert (whole["dataset"], whole["record"], whole["held_out"], whole["cut"]) == ("data.jsonl", 0, False, 0)
    assert {token[0] for turn in whole["turns"] for token in turn["tokens"] if token[3]} == set(MARKS)

    cut = view.example(6)
    assert cut["tokens"] == len(tokenizer(said(cut["turns"])).input_ids)
    assert cut["prompt"] + cut["trained"] == 60
    assert cut["cut"] == cut["tokens"] - 60
    kept = [token[1] for turn in cut["turns"] for token in turn["tokens"] if token[2] != "cut"]
    assert tokenizer.decode(kept).endswith("<|im_end|>\n")
    assert said(cut["turns"]).startswith("<|im_start|>user\nName it.<|im_end|>")


def test_a_default_system_prompt_is_told_from_the_question(inspect, tokenizer):
    tokenizer.chat_template = DEFAULT_SYSTEM
    turns = inspect(ROWS).example(0)["turns"]
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant"]
    assert said(turns[:1]) == "<|im_start|>system\nBe kind.<|im_end|>\n"
    assert said(turns[1:2]) == "<|im_start|>user\nQuestion 0?<|im_end|>\n"


def test_parts_of_a_character_are_shown_once(inspect):
    view = inspect([{"instruction": "Größe 🦊?", "output": "名 🦊🦊"}])
    assert said(view.example(0)["turns"]) == (
        "<|im_start|>user\nGröße 🦊?<|im_end|>\n<|im_start|>assistant\n名 🦊🦊<|im_end|>\n"
    )


def test_held_out_examples_follow_the_others(inspect):
    view = inspect(ROWS, val_size=2)
    examples = [view.example(number) for number in range(6)]
    assert [one["held_out"] for one in examples] == [False] * 4 + [True] * 2
    assert sorted(one["record"] for one in examples) == list(range(6))
    for one in examples:
        assert f"Question {one['record']}?" in said(one["turns"])
    for number in (6, -1):
        with pytest.raises(IndexError, match=f"There is no example {number}. Expected 0 to 5"):
            view.example(number)


def test_a_record_that_gives_several_examples_shows_each(inspect):
    view = inspect([ROWS[0], LONG], cutoff_len=40, cutoff_strategy="split")
    parts = [view.example(number) for number in range(view.overview()["examples"])]
    assert [one["record"] for one in parts] == [0] + [1] * (len(parts) - 1)
    answers = "".join(said(one["turns"], "trained") for one in parts[1:])
    assert answers == LONG["output"] + "<|im_end|>\n"


def test_records_to_look_at_are_named_and_paged(inspect, write):
    write([ROWS[1], ROWS[1]], "test.jsonl")
    rows = [*ROWS, LONG, ROWS[3], {"instruction": "x", "output": ""}]
    view = inspect(rows, cutoff_len=40, eval_dataset="test.jsonl")
    found = view.notable()
    assert found["kinds"] == {
        "dropped": 1, "cut": 1, "divided": 0, "doubled": 1, "leaked": 2, "unanswered": 1, "longest": 8,
    }  # fmt: skip
    assert [(row["kind"], row["dataset"], row["record"]) for row in found["rows"]] == [
        ("dropped", "data.jsonl", 8),
        ("cut", "data.jsonl", 6),
        ("doubled", "data.jsonl", 7),
        ("leaked", "test.jsonl", 0),
        ("leaked", "test.jsonl", 1),
    ]
    assert [row["where"] for row in found["rows"]] == ["line 9", "line 7", "line 8", "line 1", "line 2"]
    assert found["rows"][0]["reason"] == "a response is empty"
    assert found["rows"][0]["number"] is None
    assert found["rows"][2]["reason"] == "the same prompt and answer as data.jsonl line 4"
    assert view.example(found["rows"][1]["number"])["record"] == 6
    assert view.notable("leaked", offset=1, limit=5)["rows"] == found["rows"][4:]
    assert view.notable("leaked")["total"] == 2
    assert view.notable("unanswered")["rows"] == found["rows"][:1]
    longest = view.notable("longest")["rows"]
    assert (longest[0]["record"], len(longest)) == (6, 8)
    lengths = [int(row["reason"].split()[0]) for row in longest]
    assert lengths == sorted(lengths, reverse=True)
    assert view.notable("longest", offset=-3, limit=2)["rows"] == longest[:2]
    assert view.notable("longest", limit=-1)["rows"] == []


def test_texts_can_be_searched(inspect):
    view = inspect(ROWS)
    found = view.search("question 4")
    assert [(row["number"], row["record"]) for row in found["rows"]] == [(4, 4)]
    assert "Question 4?" in found["rows"][0]["reason"]
    assert found["next"] is None
    first = view.search("answer", limit=2)
    assert [row["number"] for row in first["rows"]] == [0, 1]
    assert [row["number"] for row in view.search("answer", start=first["next"])["rows"]] == [2, 3, 4, 5]
    assert view.search("answer", start=-4, limit=2) == first


def test_examples_are_found_by_the_numbers_that_their_losses_are_written_down_with(inspect):
    view = inspect(ROWS, val_size=2, seed=3)
    numbers = view._prepared.examples["number"]
    assert len(numbers) == 4
    found = view.numbered([numbers[2], 999, numbers[0]])
    assert [one["number"] for one in found] == [numbers[2], numbers[0]]
    assert [one["record"] for one in found] == [numbers[2], numbers[0]]  # each record gave one example
    for one in found:
        assert "".join(text for text, trained in one["segments"] if trained).startswith(f"The answer {one['record']}.")
        assert view.example(one["place"])["record"] == one["record"]


def test_packed_rows_show_their_examples(inspect, make_config, tokenizer):
    view = inspect([*ROWS, LONG], packing=True, cutoff_len=80)
    ready = prepare(make_config(packing=True, cutoff_len=80), tokenizer)
    found = view.rows(0, 100)
    assert (found["total"], found["capacity"]) == (len(ready.train), 80)
    for row, packed in zip(found["rows"], ready.train, strict=True):
        lengths = [len(one["input_ids"]) for one in packed["examples"]]
        trained = [sum(label != IGNORED for label in one["labels"][1:]) for one in packed["examples"]]
        assert [prompt + learned for _, _, prompt, learned in row["examples"]] == lengths
        assert [learned for *_, learned in row["examples"]] == trained
        assert row["filled"] == sum(lengths) <= 80
        place = 0
        for number, label, prompt, learned in row["examples"]:
            one = view.example(number)
            assert (one["row"], one["offset"], one["where"]) == (row["row"], place, label)
            place += prompt + learned
    least = view.rows(0, 1, least_full_first=True)["rows"][0]
    assert least["filled"] == min(row["filled"] for row in found["rows"])
    assert inspect(ROWS).rows()["total"] == 0


def counts(*rows):
    """`[examples, column]` of (source, target) lengths that nothing was cut of."""
    return np.array([(source + target, target, source + target, 0, 0, 0) for source, target in rows])


def test_what_a_cutoff_costs(make_config):
    rows = [(30, 100), (90, 10), (10, 10), (60, 60)]
    found = cost(counts(*rows), 64, make_config(), speed=10.0)
    lost = [target - truncated_lengths(source, target, 64)[1] for source, target in rows if source + target > 64]
    assert found["cut"] == 3
    assert found["lost"] == (130 - 64) + (100 - 64) + (120 - 64)
    assert found["lost_answers"] == pytest.approx(sum(lost) / 180)
    assert found["rows"] == len(pack(np.array([64, 64, 20, 64]), 64)) == 4
    assert found["fill"] == pytest.approx((3 * 64 + 20) / (4 * 64))
    assert found["seconds"] == pytest.approx((3 * 64 + 20) / 10)
    assert cost(counts((1, 1)), 64, make_config(), None)["seconds"] is None


def test_memory_grows_with_the_cutoff(make_config, tiny_model_dir):
    config = make_config(model_name_or_path=str(tiny_model_dir), packing=True)
    small, large = (cost(counts((10, 5000)), cutoff, config, None)["memory"] for cutoff in (64, 4096))
    assert 0 < small < large


def test_the_histogram_holds_every_example():
    lengths = np.array([5, 5, 7, 90, 4000])
    found = histogram(lengths, 64)
    assert sum(found["counts"]) == 5
    assert len(found["edges"]) == len(found["counts"]) + 1
    assert (found["median"], found["longest"], found["longer"]) == (7, 4000, 2)


@pytest.mark.parametrize(
    ("cutoff", "longest", "wanted"),
    [(512, 750, [256, 384, 512, 640, 768]), (512, 400, [256, 384, 512]), (100, 1000, [64, 100, 128])],
)
def test_the_cutoffs_that_are_offered(cutoff, longest, wanted):
    assert candidate_cutoffs(cutoff, longest) == wanted


def test_a_process_answers_line_by_line(make_config, write, tiny_model_dir, tmp_path):
    write(ROWS)
    (tmp_path / "config.yaml").write_text(make_config(model_name_or_path=str(tiny_model_dir)).yaml())
    asked = [
        {"id": 1, "ask": "example", "number": 2},
        {"id": 2, "ask": "example", "number": 99},
        {"id": 3, "ask": "__class__"},
        {"id": 4, "ask": "notable", "kind": "all"},
    ]
    done = subprocess.run(
        [sys.executable, "-m", "llf_core.data.inspect", str(tmp_path / "config.yaml")],
        input="".join(json.dumps(one) + "\n" for one in asked) + "no JSON\n5\n" + "[" * 100_000 + "\n",
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    written = [json.loads(line) for line in done.stdout.splitlines()]
    first, *lines = [line for line in written if "progress" not in line]  # written where the preparation takes seconds
    assert first["readings"][0]["columns"] == {"prompt": "instruction", "response": "output"}
    assert lines[0]["ready"]["examples"] == 6
    assert lines[1]["answer"]["record"] == 2
    assert (lines[2]["id"], "error" in lines[2]) == (2, True)
    assert "Unknown request '__class__'" in lines[3]["error"]
    assert lines[4]["answer"]["total"] == 0
    assert ["error" in line for line in lines[5:]] == [True] * 3


@pytest.mark.usefixtures("warm_python")
def test_a_process_says_in_a_sentence_why_it_cannot(make_config, tmp_path, tiny_model_dir):
    config = make_config(model_name_or_path=str(tiny_model_dir), dataset="nowhere.jsonl")
    (tmp_path / "config.yaml").write_text(config.yaml())
    done = subprocess.run(
        [sys.executable, "-m", "llf_core.data.inspect", str(tmp_path / "config.yaml")],
        input="", capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "There is no data set" in json.loads(done.stdout)["error"]


def test_how_rows_are_read_can_be_seen_and_corrected(make_config, write):
    rows = [json.dumps({"frage": "Hi", "reply": "Yo"}), json.dumps({"frage": "Ho", "reply": ""})]
    write("\n".join(["{"] * PEEK_ROWS + rows) + "\n")  # broken lines are not rows
    (found,) = readings(make_config())
    assert found["names"] == ["frage", "reply"]
    assert "match no known format" in found["error"]
    columns = {"prompt": "frage", "response": "reply"}
    (found,) = readings(make_config(dataset_format="alpaca", dataset_columns=columns))
    assert (found["format"], found["columns"], found["fits"], found["entry"]) == ("alpaca", columns, 0.5, False)


PAIRED = [{"prompt": f"Question {n}?", "chosen": f"The answer {n}.", "rejected": "No."} for n in range(3)]


def test_a_pair_shows_both_answers_after_one_question(inspect, tokenizer):
    view = inspect(PAIRED, stage="dpo")
    found = view.example(1)
    other = found["rejected"]
    question = "<|im_start|>user\nQuestion 1?<|im_end|>\n<|im_start|>assistant\n"
    assert said(found["turns"]) == f"{question}The answer 1.<|im_end|>\n"
    assert said(other["turns"]) == f"{question}No.<|im_end|>\n"
    assert said(found["turns"], "trained") == "The answer 1.<|im_end|>\n"
    assert said(other["turns"], "trained") == "No.<|im_end|>\n"
    assert found["turns"][0] == other["turns"][0]
    assert (found["prompt"], other["prompt"]) == (len(tokenizer(question).input_ids),) * 2
    assert other["trained"] == len(tokenizer("No.<|im_end|>\n").input_ids)
    assert [text for text, _ in view.numbered([1])[0]["segments"]] == [
        question, "The answer 1.<|im_end|>\n", "\n… rejected: ", "No.<|im_end|>\n",
    ]  # fmt: skip


def test_a_pair_that_is_cut_shows_what_is_lost_of_both(inspect, tokenizer):
    long = {"prompt": "the ship " * 20, "chosen": "the sea " * 20, "rejected": "a sea " * 20}
    view = inspect([*PAIRED, long], stage="dpo", cutoff_len=60)
    found = view.example(3)
    prepared = view._prepared.examples[3]
    for one, ids in ((found, "input_ids"), (found["rejected"], "rejected_ids")):
        kept = [token[1] for turn in one["turns"] for token in turn["tokens"] if token[2] != "cut"]
        assert kept == prepared[ids]
        assert one["prompt"] + one["trained"] == len(kept) <= 60
        assert one["cut"] == one["tokens"] - len(kept) > 0
    lengths = view.lengths()
    assert (lengths["longer"], lengths["cutoffs"], lengths["longest"]) == (1, [], 60)


@pytest.mark.parametrize("stage", ["pt", "kto", "dpo", "rm"])
def test_nothing_is_shown_that_is_not_trained(inspect, stage):
    """Of every kind of data, also where it is longer than the cutoff: the tokens shown are those of the example."""
    rows = {
        "pt": [{"text": "the sea and the ship " * 9}, {"text": "a ship"}],
        "kto": [{"prompt": "the sea " * 9, "response": "a ship " * 9, "kto_tag": True},
                {"prompt": "the sea", "response": "a ship", "kto_tag": False}],
    }.get(stage, [{"prompt": "the sea " * 9, "chosen": "a ship " * 9, "rejected": "no"}, PAIRED[0]])  # fmt: skip
    view = inspect(rows, stage=stage, cutoff_len=32)
    for number in range(view.overview()["examples"]):
        found = view.example(number)
        kept = [token[1] for turn in found["turns"] for token in turn["tokens"] if token[2] != "cut"]
        trained = [token[1] for turn in found["turns"] for token in turn["tokens"] if token[2] == "trained"]
        row = view._prepared.examples[number]
        assert kept == row["input_ids"]
        assert trained == [label for label in row["labels"] if label != IGNORED]


@pytest.mark.parametrize("names", [("a/data.jsonl", "b/data.jsonl"), ("a/data.jsonl", "a/data.jsonl")])
def test_evaluation_data_of_the_same_name_is_told_from_the_training_data(make_config, write, tokenizer, names):
    write(ROWS, "a/data.jsonl")
    write([{"instruction": f"Riddle {number}?", "output": "The sea."} for number in range(3)], "b/data.jsonl")
    view = Inspection.open(make_config(dataset=names[0], eval_dataset=names[1]), tokenizer)
    shown = view.example(7)
    assert shown["held_out"]
    assert [turn["role"] for turn in shown["turns"]] == ["user", "assistant"]
    assert ("Riddle 1?" if names[1].startswith("b") else "Question 1?") in said(shown["turns"])


def test_a_record_of_several_examples_is_notable_once(inspect, tokenizer):
    tokenizer.chat_template = STRIPS_THINKING
    long = "the sea and the ship " * 40
    talk = [
        {"role": "user", "content": "Name it."},
        {"role": "assistant", "content": f"<think>x</think>{long}"},
        {"role": "user", "content": "Again."},
        {"role": "assistant", "content": f"<think>y</think>{long}"},
    ]
    found = inspect([{"messages": talk}], cutoff_len=60).notable("cut")
    assert found["total"] == 1
    found = inspect([{"messages": talk}], cutoff_len=60, cutoff_strategy="split").notable()
    assert found["kinds"]["dropped"] == 0
    short = [talk[0], {"role": "assistant", "content": "<think>x</think>A ship."}, *talk[2:]]
    (row,) = inspect([{"messages": short}, {"messages": short[:2]}], cutoff_len=100, cutoff_strategy="drop").notable(
        "dropped"
    )["rows"]
    assert row["reason"].startswith("not all of its responses: it has ")
    assert row["number"] == 0


def test_streamed_data_is_not_downloaded_to_see_how_it_is_read(make_config, write, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "llf_core.data.inspect.inspection.open_source",
        lambda source, cache, **given: asked.append(given) or open_source(source, cache, **given),
    )
    write(ROWS)
    assert readings(make_config(streaming=True, max_steps=1))[0]["format"] == "alpaca"
    assert asked == [{"streaming": True}]


def test_the_number_of_streamed_records_that_are_read_is_that_of_both_limits(make_config, write, tokenizer):
    write(ROWS)
    config = make_config(streaming=True, max_steps=1, buffer_size=5, max_samples=3)
    overview = Inspection.open(config, tokenizer).overview()
    assert (overview["streamed"], overview["examples"]) == (3, 3)


def test_an_example_shows_its_turns_where_another_response_of_its_record_is_unusable(inspect, tokenizer):
    refuses = "{% if messages[0]['content'] == 'Again.' %}{{ raise_exception('no question') }}{% endif %}"
    tokenizer.chat_template = refuses + STRIPS_THINKING
    talk = [
        {"role": "user", "content": "Name it."},
        {"role": "assistant", "content": "<think>x</think>A ship."},
        {"role": "user", "content": "Again."},
        {"role": "assistant", "content": "<think>y</think>The sea."},
    ]
    whole = inspect([{"messages": talk}])
    view = inspect([{"messages": talk}], cutoff_len=whole.example(1)["tokens"] - 1)  # without the oldest exchange
    assert view.overview()["examples"] == view.overview()["dropped"] == 1
    shown = view.example(0)
    assert [turn["role"] for turn in shown["turns"]] == ["user", "assistant"]
    assert said(shown["turns"], "trained") == "<think>x</think>A ship.<|im_end|>\n"

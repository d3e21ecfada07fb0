"""Tasks of lm-eval through `evaluate`: results equal lm-eval's own, and what cannot be measured is told."""

import json

import pytest
import yaml
from lm_eval.evaluator import simple_evaluate
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from llf_core.chat.target import find_target
from llf_core.cli import app
from llf_core.evaluation.errors import EvaluationError
from llf_core.evaluation.evaluate import evaluate
from llf_core.evaluation.harness import load_tasks as load_tasks_module
from llf_core.evaluation.harness.load_tasks import load_tasks, shipped_tasks, task_name
from llf_core.evaluation.request import EvaluationRequest
from llf_core.runs.evaluations import examples_of, results_of

LIMIT = 10


def load(*names, n_shot=None, limit=None, hub=False):
    return load_tasks(names, n_shot=n_shot, seed=1234, limit=limit, hub=hub)


@pytest.fixture
def local_task(tmp_path):
    """A folder with a task of two texts that are read as a whole."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    data = folder / "texts.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in ("the sea and the ship", "one two three")))
    (folder / "own.yaml").write_text(
        f"task: own_texts\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        "output_type: loglikelihood_rolling\ntest_split: test\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n"
        "metric_list: [{metric: byte_perplexity}]\n"
    )
    return folder


def test_results_are_those_of_lm_eval_and_are_not_measured_twice(tiny_model_dir, local_task, llf_home, warm_python):
    asked = {"tasks": ["llf_offline", local_task], "limit": LIMIT, "n_shot": 2}
    model = local_task.parent / "model.yaml"
    model.write_text(f"model_name_or_path: {tiny_model_dir}\ninfer_dtype: float32\n")
    found = evaluate([model], **asked)
    expected = simple_evaluate(
        HFLM(
            pretrained=AutoModelForCausalLM.from_pretrained(tiny_model_dir),
            tokenizer=AutoTokenizer.from_pretrained(tiny_model_dir),
            batch_size=4,
            device="cpu",
        ),
        tasks=[*shipped_tasks().values(), str(local_task / "own.yaml")],
        num_fewshot=2,
        limit=LIMIT,
        apply_chat_template=True,
        bootstrap_iters=1000,
    )
    assert [one.settings["task"] for one in found] == [*shipped_tasks(), "own_texts"]
    for result in found:
        name = result.settings["task"]
        own = expected["results"][name]
        assert result.settings["n_shot"] == (0 if name == "llf_completion" else 2)
        for value in result.metrics:
            metric, _, kind = value.name.partition(" ")
            key = f"{metric},{kind.strip('()') or 'none'}"
            assert value.value == pytest.approx(own[key], rel=1e-5), key
            if metric != "byte_perplexity":
                assert value.standard_error == own[key.replace(",", "_stderr,")]
                samples = expected["samples"][name]
                scores = [one.scores[value.name] for one in examples_of(result)]
                assert scores == [sample[metric] for sample in samples]
        assert result.data.examples == len(examples_of(result)) == (2 if name == "own_texts" else LIMIT)
    answers = [one.answer for one in examples_of(found[1])]
    assert answers == [sample["filtered_resps"][0] for sample in expected["samples"]["llf_arithmetic"]]
    again = evaluate([model], **asked)
    assert [one.id for one in again] == [one.id for one in found]
    assert len(results_of(found[0].folder.parent)) == len(found)


def test_a_run_is_compared_with_its_base_on_a_task(trained, warm_python):
    folder, _ = trained(max_steps=12, val_size=6, learning_rate=2e-2, infer_dtype="float32")
    told = CliRunner().invoke(
        app, ["eval", folder.id, "--task", "llf_completion,llf_knowledge", "--limit", "12", "--json"]
    )
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert [one["settings"]["task"] for one in found["results"]] == ["llf_completion"] * 2 + ["llf_knowledge"] * 2
    assert [one["target"]["label"] for one in found["results"][::2]] == ["base model"] * 2
    assert {(one["metric"], one["count"]) for one in found["differences"]} == {("acc", 12), ("acc_norm", 12)}


def test_what_cannot_be_measured_is_told(tmp_path, monkeypatch, tiny_model_dir):
    with pytest.raises(EvaluationError, match="Did you mean 'mmlu_anatomy'"):
        load("mmlu_anatomi")
    with pytest.raises(EvaluationError, match=r"not on this machine.*--hub"):
        load("mmlu_anatomy")
    with pytest.raises(EvaluationError, match="There is no task file"):
        load(str(tmp_path / "missing.yaml"))
    with pytest.raises(EvaluationError, match="has no task"):
        load(str(tmp_path))
    with pytest.raises(EvaluationError, match=r"Metrics score answers .* Name the data"):
        evaluate([tiny_model_dir], tasks=["llf_completion"], metrics="rouge")
    monkeypatch.setattr(load_tasks_module, "find_spec", lambda _: None)
    with pytest.raises(EvaluationError, match=r'pip install "jieba.*" "lm-eval'):
        evaluate([tiny_model_dir], tasks=["llf_completion"])
    with pytest.raises(EvaluationError, match="n_shot is -1"):
        evaluate([tiny_model_dir], tasks=["llf_completion"], n_shot=-1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": 3}, r"`task` in .*own\.yaml is 3\. Expected a name"),
        ({"doc_to_text": "{{question"}, r"own\.yaml cannot be read: unexpected end of template"),
        ({"metric_list": [{"metric": "nowhere"}]}, "names a metric in `metric_list` that lm-eval does not know"),
        (
            {"dataset_kwargs": {"data_files": {"test": "/nowhere/at/all.jsonl"}}},
            r"a file that is not there: .*all\.jsonl",
        ),
        ({"include": "gone.yaml"}, r"a file that is not there: .*gone\.yaml"),
        ({"colour": "red"}, r"own\.yaml cannot be read: .*'colour'"),
    ],
)
def test_a_task_file_that_cannot_be_used_is_a_sentence(tmp_path, changes, said):
    assert [one.name for one in load(str(task_file(tmp_path)))] == ["own"]
    with pytest.raises(EvaluationError, match=said):
        load(str(task_file(tmp_path, **changes)))


def test_a_template_that_fails_for_a_later_example_is_told_of_its_task(tmp_path, tiny_model_dir, llf_home, warm_python):
    path = task_file(tmp_path, doc_to_text="{{ 1 // number }}")
    rows = ({"number": number, "answer": "one"} for number in (1, 0))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(RuntimeError, match="The task own failed: ZeroDivisionError"):
        evaluate([tiny_model_dir], tasks=[path])


def test_a_folder_with_a_file_that_cannot_be_read_is_refused_and_not_measured_in_part(tmp_path):
    task_file(tmp_path)
    (tmp_path / "shared.yaml").write_text("num_fewshot: 0\n")  # no task, for others to include
    assert [one.name for one in load(str(tmp_path))] == ["own"]
    torn = tmp_path / "torn.yaml"
    torn.write_text("task: [other\n  b: }")
    with pytest.raises(EvaluationError, match=rf"The task {torn} cannot be read: while parsing"):
        load(str(tmp_path))
    assert [one.name for one in load(str(tmp_path / "own.yaml"))] == ["own"]  # a file beside it does not matter


def test_a_task_without_examples_is_a_sentence(tmp_path):
    path = task_file(tmp_path)
    (tmp_path / "rows.jsonl").write_text("")
    with pytest.raises(EvaluationError, match=r"own\.yaml has no examples"):
        load(str(path))


def task_file(folder, **changes):
    """A task of a single example."""
    rows = folder / "rows.jsonl"
    rows.write_text('{"question": "What is 1?", "answer": "It is 1."}\n')
    config = {
        "task": "own", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(rows)}},
        "test_split": "test", "output_type": "generate_until", "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}", "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump(config | changes))
    return path


def test_names_of_llama_factory_are_lm_evals_tasks(tiny_model_dir):
    assert [task_name(one) for one in ("mmlu_test", "ceval_validation", "arc_easy")] == [
        "mmlu",
        "ceval-valid",
        "arc_easy",
    ]
    request = EvaluationRequest((find_target(tiny_model_dir),), (), tasks=("mmlu",), n_shot=3)
    assert EvaluationRequest.read(request.json()) == request


def test_what_ships_is_whole():
    found = {one.name: one for one in load("llf_offline")}
    assert {name: one.examples for name, one in found.items()} == {
        "llf_knowledge": 60,
        "llf_arithmetic": 60,
        "llf_completion": 40,
    }
    assert [one.generates for one in found.values()] == [False, True, False]
    assert load("llf_knowledge", limit=7)[0].examples == 7
    for name in ("llf_knowledge", "llf_completion"):
        docs = [doc for _, doc in found[name].leaves[name].doc_iterator(rank=0, limit=None, world_size=1)]
        assert all(len(set(doc["choices"])) == 4 for doc in docs)
        places = [doc["answer"] for doc in docs]
        assert {places.count(place) for place in range(4)} == {len(docs) // 4}

import pytest

from llf_core.config import validate
from llf_core.config.evaluation_keys import asks_for_evaluation, asks_for_predictions, prediction_values

NO, YES = (False, "no", "Off", "false", 0), (True, "yes", "On", "true", 1)


@pytest.mark.parametrize("no", NO)
def test_every_word_for_false_asks_for_an_evaluation(no):
    assert asks_for_evaluation({"do_train": no})
    assert not asks_for_predictions({"do_train": no})


@pytest.mark.parametrize("yes", YES)
def test_every_word_for_true_asks_for_predictions(yes):
    assert asks_for_predictions({"do_predict": yes})
    assert asks_for_predictions({"do_predict": yes, "do_train": "no"})
    assert not asks_for_evaluation({"do_predict": yes, "do_train": "no"})
    assert not asks_for_predictions({"do_predict": yes, "do_train": yes})


@pytest.mark.parametrize("key", ["do_train", "predict_with_generate"])
def test_a_word_that_is_no_flag_is_refused(key):
    values = {"dataset": "llf_demo", "do_predict": True, key: "ture"}
    assert asks_for_predictions(values) is (key != "do_train")
    (problem,) = validate(prediction_values(values)).problems
    assert (problem.severity, problem.key) == ("error", key)
    assert "'ture'" in problem.message


@pytest.mark.parametrize("task", ["", " , ", [], None])
def test_a_task_without_a_name_is_none(task):
    assert not asks_for_evaluation({"task": task})
    assert asks_for_evaluation({"task": "mmlu_test"})


def test_the_config_of_a_prediction_has_nothing_that_asks_for_it():
    values = {
        "dataset": "a",
        "eval_dataset": "llf_demo",
        "val_size": 0.1,
        "do_predict": True,
        "predict_with_generate": 1,
    }
    for asked in (values, values | {"do_train": "no", "metrics": "f1", "output_dir": "x"}):
        assert asks_for_predictions(asked)
        assert prediction_values(asked) == {"dataset": "llf_demo"}
        assert validate(prediction_values(asked)).problems == ()

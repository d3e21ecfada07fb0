import pytest

from llf_core.config.evaluation_keys import asks_for_evaluation, asks_for_predictions

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


@pytest.mark.parametrize("task", ["", " , ", [], None])
def test_a_task_without_a_name_is_none(task):
    assert not asks_for_evaluation({"task": task})
    assert asks_for_evaluation({"task": "mmlu_test"})

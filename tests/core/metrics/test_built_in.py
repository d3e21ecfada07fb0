"""Built-in metrics against sacrebleu, rouge-score and values that are computed by hand."""

import random
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from llf_core.metrics import MetricError, ScoredExample, load_metrics, score_answers, text_overlap

WORDS = [
    "the",
    "a",
    "cat",
    "dog",
    "sat",
    "on",
    "mat,",
    "over",
    "it's",
    "lazy",
    "(quick)",
    "brown",
    "fox.",
    "jumps",
    "42",
    "U.S.",
    "don't",
    "—",
    "naïve",
    "café",
    "!",
]
PAIRS = [
    ("The quick brown fox jumps over the lazy dog", "The quick brown dog jumps on the log."),
    ("", "Not empty."),
    ("Not empty.", ""),
    ("a", "a"),
    ("It is 42.", "It is 42."),
    ("nothing in common", "xyz uvw"),
]


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    """Answers with references: edges, and 60 noisy copies of lengths 0 to 30."""
    draw = random.Random(0)
    found = list(PAIRS)
    for _ in range(60):
        reference = draw.choices(WORDS, k=draw.randrange(30))
        answer = [draw.choice(WORDS) if draw.random() < 0.3 else word for word in reference]
        found.append((" ".join(answer[: draw.randrange(1, 31)]), " ".join(reference)))
    return found


def measured(name, pairs):
    (metric,) = load_metrics([name])
    answers, references = zip(*pairs, strict=True)
    return metric, score_answers(metric, answers, [ScoredExample(reference=one) for one in references])


@pytest.mark.parametrize(
    ("name", "sentence", "corpus"),
    [
        ("bleu", sacrebleu.metrics.BLEU(effective_order=True), sacrebleu.metrics.BLEU()),
        ("chrf", sacrebleu.metrics.CHRF(), sacrebleu.metrics.CHRF()),
    ],
)
def test_scores_and_values_are_those_of_sacrebleu(name, sentence, corpus, pairs):
    metric, found = measured(name, pairs)
    wanted = [sentence.sentence_score(answer, [reference]).score for answer, reference in pairs]
    assert found.scores == pytest.approx(wanted, rel=1e-12, abs=1e-12)
    for chosen in (range(len(pairs)), [0], [1], [3, 3, 4], [5], [2, 5], range(20, 40)):  # also few n-grams, and none
        answers, references = zip(*(pairs[place] for place in chosen), strict=True)
        value = metric.total(found.statistics[list(chosen)].sum(0))
        assert value == pytest.approx(corpus.corpus_score(answers, [references]).score, rel=1e-12, abs=1e-12)


def test_chinese_bleu_is_that_of_its_tokenizer():
    pairs = [("我们喜欢学习中文和数学。", "我们喜欢学习中文和物理。"), ("今天天气很好", "今天的天气非常好")]
    _, found = measured("bleu", pairs)
    answers, references = zip(*pairs, strict=True)
    assert found.value == pytest.approx(sacrebleu.corpus_bleu(answers, [references], tokenize="zh").score, rel=1e-12)
    assert found.value > 30 > sacrebleu.corpus_bleu(answers, [references]).score


@pytest.mark.parametrize("kind", ["rouge1", "rouge2", "rougeL"])
def test_scores_are_those_of_rouge_score(kind, pairs):
    _, found = measured(kind, pairs)
    theirs = RougeScorer([kind])
    assert found.scores == tuple(theirs.score(reference, answer)[kind].fmeasure for answer, reference in pairs)
    assert found.value == pytest.approx(np.mean(found.scores), rel=1e-12)


def test_rouge_has_the_words_of_any_script(monkeypatch):
    # Words of jieba: 我们 喜欢 学习 中文 and 我们 学习 数学; two are common: F = 2 · 2 / (4 + 3).
    chinese = [("我们喜欢学习中文。", "我们学习数学")]
    metric, found = measured("rouge1", chinese)
    assert found.value == pytest.approx(4 / 7)
    assert metric.notes == []
    _, russian = measured("rouge1", [("Кошка сидит на ковре", "кошка лежит на ковре!")])
    assert russian.value == pytest.approx(3 / 4)
    monkeypatch.setattr(text_overlap, "find_spec", lambda name: None if name == "jieba" else find_spec(name))
    metric, found = measured("rouge1", chinese)  # characters: 8 and 6, four of them common
    assert found.value == pytest.approx(8 / 14)
    assert metric.notes == [text_overlap.NO_JIEBA]


@pytest.mark.parametrize(
    ("answer", "reference", "exact", "f1"),
    [
        ("The  Cat!", "cat", 1, 1),  # case, punctuation, articles and blanks
        ("a big black cat sat", "the black cat", 0, 2 * 2 / (4 + 2)),
        ("cat cat cat", "cat cat", 0, 2 * 2 / (3 + 2)),
        ("dog", "cat", 0, 0),
        ("the", "", 1, 1),
        ("", "cat", 0, 0),
        ("theatre", "atre", 0, 0),
        ("“北京”。", "北京", 1, 1),
        ("在北京市", "北京", 0, 2 * 2 / (4 + 2)),
    ],
)
def test_exact_match_and_f1_by_hand(answer, reference, exact, f1):
    pair = [(answer, reference)]
    assert measured("exact_match", pair)[1].scores == (exact,)
    assert measured("f1", pair)[1].scores == pytest.approx((f1,))


def test_a_group_gives_all_of_its_metrics_once():
    assert [one.name for one in load_metrics(["rouge1", "rouge", "f1", "f1"])] == ["rouge1", "rouge2", "rougeL", "f1"]


def test_an_unknown_name_and_a_missing_package_are_told(monkeypatch):
    with pytest.raises(MetricError, match=r"Unknown metric 'rogue'\. Expected .* Did you mean 'rouge'\?"):
        load_metrics(["rogue"])
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(MetricError, match=r"bleu needs sacrebleu, which cannot be imported: .*pip install sacrebleu"):
        load_metrics(["bleu"])

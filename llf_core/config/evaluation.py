from __future__ import annotations

from llf_core.config.option import Names, Section, option


class Evaluation(Section):
    """Metrics beside the loss at each evaluation of a run."""

    metrics: Names | None = option(
        None,
        unset="the loss alone",
        label="Metrics",
        help=(
            "Metrics of generated answers at each evaluation: built-in ones (`rouge`, `bleu`, `chrf`, `exact_match`, "
            "`f1`), those of plug-ins, functions under `@llf.metric`, or `FILE.py:FUNCTION`."
        ),
        path="metrics",
    )
    metrics_examples: int = option(
        64,
        label="Answered examples",
        help="At each evaluation, `metrics` score the answers to this many validation examples, equally many of each "
        "data set.",
        unit="examples",
        minimum=1,
    )
    metrics_tokens: int = option(
        256,
        label="Answer length",
        help="Answers that `metrics` score are truncated after this many tokens.",
        unit="tokens",
        minimum=1,
    )
    compute_accuracy: bool = option(
        False,
        label="Token accuracy",
        help="Each evaluation also measures the share of tokens in the loss that are the most likely ones.",
        source="LLaMA-Factory",
        trait="token_accuracy",
    )
    eval_on_each_dataset: bool = option(
        False,
        label="Evaluate each data set",
        help="Each evaluation also has the loss and the metrics of each data set, as `NAME_loss`.",
        source="LLaMA-Factory",
    )
    do_predict: bool = option(
        False,
        label="Predict after training",
        help="After training, the result answers the evaluation data: `generated_predictions.jsonl`, and their "
        "`metrics` in `predict_results.json`.",
        source="LLaMA-Factory",
    )

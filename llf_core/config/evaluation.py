"""Which metrics score the answers of an evaluation; training reads none of it."""

from __future__ import annotations

from llf_core.config.option import Names, Section, option


class Evaluation(Section):
    """Evaluation of models and of the results of runs."""

    metrics: Names = option(
        (),
        unset="the loss alone",
        label="Metrics",
        help=(
            "Metrics of generated answers: built-in ones (`rouge`, `bleu`, `chrf`, `exact_match`, `f1`), those of "
            "plug-ins, functions under `@llf.metric`, or `FILE.py:FUNCTION`."
        ),
        path="metrics",
    )

"""The model card of an export: what it is, data and config of its run, curve, evaluations and receipt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from llf_core.config import ConfigError
from llf_core.export.compare import LOSSY
from llf_core.export.format import find_format
from llf_core.models.card import shared_config, use_lines
from llf_core.redaction import redact
from llf_core.runs import RunReader, open_run
from llf_core.runs.config_file import run_config
from llf_core.runs.evaluations import results_of
from llf_core.runs.formatting import size

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.export.receipt import Receipt
    from llf_core.export.request import ExportRequest
    from llf_core.export.source import ExportSource
    from llf_core.runs.evaluations import EvaluationResult

CARD = "README.md"
ROWS = 10


def write_card(source: ExportSource, request: ExportRequest, receipt: Receipt, folder: Path) -> None:
    """Write the model card `README.md` in the format of the Hugging Face Hub."""
    facts = run_facts(request.target.run_id)
    parts = [
        f"---\n{yaml.safe_dump(_front(source, request, facts), sort_keys=False)}---",
        f"# {request.target.name}",
        _what(source, request, facts),
        _loading(source, request),
        _curve(facts),
        _evaluations(facts),
        _receipt(receipt),
        _config(facts),
    ]
    text = "\n\n".join(part for part in parts if part) + "\n"
    (folder / CARD).write_text(redact(text), encoding="utf-8")


def _front(source: ExportSource, request: ExportRequest, facts: RunFacts | None) -> dict[str, Any]:
    library = next((one for one in ("peft", "transformers") if one in find_format(request.format).readers), "gguf")
    task = "text-generation" if source.classifier_arguments is None else "text-classification"
    front: dict[str, Any] = {"library_name": library, "pipeline_tag": task, "tags": ["llf"]}
    if facts is not None:
        front["tags"] += [facts.config.stage.stage, facts.config.method.finetuning_type]
    if source.base.portable_name is not None:
        front["base_model"] = source.base.portable_name
        if request.adapters and request.format == "merged":
            front["base_model_relation"] = "finetune" if len(request.adapters) == 1 else "merge"
        elif request.adapters and request.format in {"adapter", "gguf-adapter"}:
            front["base_model_relation"] = "adapter"
    if source.base.license:
        front["license"] = source.base.license
    return front


def _what(source: ExportSource, request: ExportRequest, facts: RunFacts | None) -> str:
    kind = {
        "adapter": "An adapter for",
        "gguf-adapter": "A GGUF adapter for",
        "merged": "A whole model, tuned from",
    }.get(request.format, "Made from")
    text = f"{kind} `{source.base.portable_name or source.base.name.rpartition('/')[2]}`"
    if len(request.adapters) > 1:
        named = ", ".join(f"{_last(one.name or one.adapter)} (weight {one.weight:g})" for one in request.adapters)
        text += f", with {len(request.adapters)} adapters combined ({request.combination}): {named}"
    if facts is not None and facts.config.data.dataset:
        text += f". Trained on {', '.join(_last(one) for one in facts.config.data.dataset)}"
        stage, method = facts.config.stage.stage, facts.config.method.finetuning_type
        text += f" by {stage} with {method}" + (f", {request.target.step:,} steps" if request.target.step else "")
    return f"{text}."


def _loading(source: ExportSource, request: ExportRequest) -> str:
    form = find_format(request.format)
    if not form.readers:
        return ""
    chat, scores = source.reference.template is not None, source.classifier_arguments is not None
    code = f"{source.load_lines()}\n{use_lines(chat=chat, scores=scores)}"
    return f"It loads after `pip install {' '.join(('torch', *form.readers))}`:\n\n```python\n{code}\n```"


def _curve(facts: RunFacts | None) -> str:
    if facts is None or not facts.curve:
        return ""
    names = [name for name in ("loss", "eval_loss") if any(name in row for _, row in facts.curve)]
    head = [f"| step | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    shown = _spread(facts.curve)
    rows = [f"| {step:,} | {' | '.join(_number(row.get(name)) for name in names)} |" for step, row in shown]
    return "## Training\n\n" + "\n".join([*head, *rows])


def _spread(rows: list[Any]) -> list[Any]:
    """At most `ROWS` rows, evenly spaced, with the first and the last."""
    if len(rows) <= ROWS:
        return rows
    return [rows[round(at * (len(rows) - 1) / (ROWS - 1))] for at in range(ROWS)]


def _evaluations(facts: RunFacts | None) -> str:
    if facts is None or not facts.evaluations:
        return ""
    lines = ["| target | data | metric | value | 95 % interval |", "|---|---|---|---|---|"]
    for result in facts.evaluations:
        data = ", ".join(_last(one) for one in result.data.names)
        for metric in result.metrics:
            band = "" if metric.low is None or metric.high is None else f"{metric.low:.4g} to {metric.high:.4g}"
            value = f"{metric.value:.4g} {metric.unit}".rstrip()
            lines.append(f"| {result.target.name} | {data} | {metric.label} | {value} | {band} |")
    return "## Evaluation\n\n" + "\n".join(lines)


def _receipt(receipt: Receipt) -> str:
    lines = ["| check | passed | measured | limit |", "|---|---|---|---|"]
    for one in receipt.checks:
        measured = f"{one.measured:.3g} {one.unit}".rstrip() if isinstance(one.measured, float) else one.measured
        equal = "" if isinstance(one.measured, float) or one.detail == LOSSY else "equal"
        limit = equal if one.limit is None else f"{one.limit:.3g}"
        lines.append(f"| {one.name} | {'yes' if one.passed else 'no'} | {measured} | {limit} |")
    by = sorted({one.by for one in receipt.checks if one.by})
    text = "## Receipt\n\nThe files were read back and compared with the live model"
    text += f" by {', '.join(by)}:\n\n" if by else ":\n\n"
    return text + "\n".join(lines) + _table(receipt)


def _table(receipt: Receipt) -> str:
    if not receipt.table:
        return ""
    names = list(dict.fromkeys(name for row in receipt.table for name in row))
    rows = ["\n\n| " + " | ".join(names).replace("_", " ") + " |", "|" + "---|" * len(names)]
    for row in receipt.table:
        cells = [
            " ".join(size(row[name])) if name == "bytes" and name in row else _number(row.get(name)) for name in names
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _config(facts: RunFacts | None) -> str:
    if facts is None:
        return ""
    return f"The config of the run, paths shortened:\n\n```yaml\n{shared_config(facts.config)}```"


def _number(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "" if value is None else str(value)


def _last(name: str) -> str:
    """Last component of an absolute path; any other name as it is."""
    return name.rstrip("/").rpartition("/")[2] if name.startswith("/") else name


NAMES = ("loss", "eval_loss")
RESULTS = 5


@dataclass(frozen=True)
class RunFacts:
    """Curve (values of `NAMES` by step) and newest evaluations (at most `RESULTS`) of a run."""

    config: RunConfig
    curve: list[tuple[int, dict[str, float]]]
    evaluations: list[EvaluationResult]


def run_facts(run_id: str) -> RunFacts | None:
    """Read what is shown of a run; None if there is none of this id, or its config is no longer valid."""
    if not run_id:
        return None
    try:
        run = open_run(run_id)
        config = run_config(run)
    except (FileNotFoundError, ValueError, ConfigError):
        return None
    columns = RunReader(run).metrics()
    rows: dict[int, dict[str, float]] = {}
    for name in NAMES:
        if name in columns:
            for step, value in zip(columns.steps(name).tolist(), columns.values(name).tolist(), strict=True):
                rows.setdefault(step, {})[name] = value
    found = [one for one in results_of(run) if not one.problem]
    return RunFacts(config, sorted(rows.items()), found[:RESULTS])

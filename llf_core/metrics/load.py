"""Loads metrics by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.metric_names import declarations_of, function_name
from llf_core.metrics.base_metric import Metric, MetricError
from llf_core.metrics.function_metric import FunctionMetric
from llf_core.metrics.stored_functions import unknown_metric
from llf_core.user_functions.function_files import StoredFunctionError, load_stored_function

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def load_metrics(names: Iterable[str], code: Path | None = None) -> list[Metric]:
    """Load metrics by name, each once; missing libraries are found here.

    The files in `code` that belong to the names are executed.

    Args:
        names: built-in metrics, plug-ins, groups such as `rouge` (all of its metrics), or functions stored in
            `code`.
        code: folder with the source of the user's functions, a run's `code/`; None if there is none.
    """
    found: dict[str, Metric] = {}
    for name in names:
        own = declarations_of(name)
        for one in own:
            if one.name not in found:
                found[one.name] = one.load(Metric)(one)
        if not own and function_name(name) not in found:
            found[function_name(name)] = _stored(name, code)
    return list(found.values())


def _stored(name: str, code: Path | None) -> Metric:
    called = function_name(name)
    if code is None or not called.isidentifier():
        raise MetricError(name, unknown_metric(name))
    path = code / f"{called}.py"
    try:
        return FunctionMetric(called, load_stored_function(path), f"{code.name}/{path.name}", str(path))
    except StoredFunctionError as error:
        raise MetricError(name, unknown_metric(name) if error.missing else f"{error}.") from error
    except TypeError as error:
        raise MetricError(name, str(error)) from error

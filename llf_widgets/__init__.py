"""Notebook interface of LLF: `import llf_widgets as llf`.

Importing this package is fast: names are imported on first use, since the Jupyter server imports the package too and
does not need ipywidgets.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from llf_core import NO_WINDOWS, __version__
from llf_core.lazy_exports import lazy_exports

if sys.platform == "win32":
    raise ImportError(NO_WINDOWS)

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

    from llf_core.data.text_lengths import estimate
    from llf_core.launch import attach, fetch
    from llf_core.metrics import metric
    from llf_core.rewards import reward
    from llf_widgets.chat import Chat
    from llf_widgets.compare import Compare
    from llf_widgets.evaluation import Evaluate
    from llf_widgets.evaluation_calls import answers, losses, reward_accuracy, win_rate
    from llf_widgets.examples import Examples
    from llf_widgets.export_view import export
    from llf_widgets.forms import Studio
    from llf_widgets.inspect import Inspect
    from llf_widgets.learning_rate import find_learning_rate
    from llf_widgets.magics import load_ipython_extension
    from llf_widgets.monitor import Monitor
    from llf_widgets.reward_preview import try_rewards
    from llf_widgets.start import sweep, train
    from llf_widgets.versions import check

__all__ = [
    "Chat",
    "Compare",
    "Evaluate",
    "Examples",
    "Inspect",
    "Monitor",
    "Studio",
    "__version__",
    "answers",
    "attach",
    "check",
    "estimate",
    "export",
    "fetch",
    "find_learning_rate",
    "load_ipython_extension",
    "losses",
    "metric",
    "reward",
    "reward_accuracy",
    "sweep",
    "train",
    "try_rewards",
    "win_rate",
]

_HOMES = {
    "Chat": "llf_widgets.chat",
    "Compare": "llf_widgets.compare",
    "Evaluate": "llf_widgets.evaluation",
    "Examples": "llf_widgets.examples",
    "Inspect": "llf_widgets.inspect",
    "Monitor": "llf_widgets.monitor",
    "Studio": "llf_widgets.forms",
    "answers": "llf_widgets.evaluation_calls",
    "attach": "llf_core.launch",
    "check": "llf_widgets.versions",
    "estimate": "llf_core.data.text_lengths",
    "export": "llf_widgets.export_view",
    "fetch": "llf_core.launch",
    "find_learning_rate": "llf_widgets.learning_rate",
    "load_ipython_extension": "llf_widgets.magics",
    "losses": "llf_widgets.evaluation_calls",
    "metric": "llf_core.metrics",
    "reward": "llf_core.rewards",
    "reward_accuracy": "llf_widgets.evaluation_calls",
    "sweep": "llf_widgets.start",
    "train": "llf_widgets.start",
    "try_rewards": "llf_widgets.reward_preview",
    "win_rate": "llf_widgets.evaluation_calls",
}

__getattr__ = lazy_exports(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    return [{"src": "labextension", "dest": "llf-labextension"}]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "llf_widgets"}]


def _load_jupyter_server_extension(server_app: ServerApp) -> None:
    from llf_widgets.server import add_routes

    add_routes(server_app.web_app)
    server_app.log.info("LLF %s lists runs under llf/api", __version__)

"""SGLang as an engine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

from llf_core.chat.server_arguments import base_model, further_arguments
from llf_core.chat.server_engine import BASE, HOST, ServerEngine
from llf_core.config.declarations.chat_engines import SGLangOptions

if TYPE_CHECKING:
    from llf_core.config import RunConfig

MAX_RANK = 256
"""Largest rank of an adapter that is loaded while the server runs."""


class SGLangEngine(ServerEngine):
    """A running `python -m sglang.launch_server`.

    It listens on loopback without a key, since SGLang takes its key as an argument, which other users can read. Source:
    SGLang's documentation, *Server arguments* and *LoRA serving*.
    """

    title: ClassVar[str] = "SGLang"
    load_path: ClassVar[str] = "/load_lora_adapter"
    unload_path: ClassVar[str] = "/unload_lora_adapter"

    def command(self, config: RunConfig) -> tuple[list[str], dict[str, str]]:
        """See `ServerEngine.command`. Adapters can be loaded while it runs."""
        options = config.options(SGLangOptions)
        folder, code = base_model(config, self.title, trust=self.settings.trust)
        command = [sys.executable, "-P", "-m", "sglang.launch_server", "--model-path", folder]
        command += ["--host", HOST, "--port", str(self.port), "--served-model-name", BASE]
        command += ["--dtype", config.chat.infer_dtype, "--context-length", str(options.sglang_maxlen)]
        command += ["--mem-fraction-static", str(options.sglang_mem_fraction)]
        command += ["--tp-size", str(max(1, options.sglang_tp_size))]
        command += ["--enable-lora", "--max-lora-rank", str(MAX_RANK), "--lora-target-modules", "all"]
        command += ["--lora-backend", options.sglang_lora_backend]
        command += code
        command += further_arguments(options.sglang_config)
        return command, {}

    def model_name(self, adapter: str | None) -> str:
        """The name of a model in SGLang's notation, `base:ADAPTER`, see `ServerEngine.model_name`."""
        return BASE if adapter is None else f"{BASE}:{adapter}"

"""vLLM as an engine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, ClassVar

from llf_core.chat.server_arguments import base_model, further_arguments
from llf_core.chat.server_engine import BASE, HOST, ServerEngine
from llf_core.config.declarations.chat_engines import VLLMOptions

if TYPE_CHECKING:
    from llf_core.config import RunConfig


class VLLMEngine(ServerEngine):
    """A running `vllm serve`. Source: vLLM's documentation, *Engine arguments* and *LoRA adapters*."""

    title: ClassVar[str] = "vLLM"

    def command(self, config: RunConfig) -> tuple[list[str], dict[str, str]]:
        """See `ServerEngine.command`. Adapters can be loaded while it runs."""
        options = config.options(VLLMOptions)
        folder, code = base_model(config, self.title, trust=self.settings.trust)
        command = [sys.executable, "-P", "-m", "vllm.entrypoints.cli.main", "serve", folder]
        command += ["--host", HOST, "--port", str(self.port), "--served-model-name", BASE]
        command += ["--dtype", config.chat.infer_dtype, "--max-model-len", str(options.vllm_maxlen)]
        command += ["--gpu-memory-utilization", str(options.vllm_gpu_util)]
        command += ["--enable-lora", "--max-lora-rank", str(options.vllm_max_lora_rank)]
        command += ["--enforce-eager"] if options.vllm_enforce_eager else []
        command += code
        command += further_arguments(options.vllm_config)
        return command, {"VLLM_API_KEY": self.key, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"}

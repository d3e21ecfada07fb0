"""Makes `targets.json`: what LLaMA-Factory 0.9.5 trains of small models, by the options in `cases.py`.

    python tests/core/methods/llama_factory/make_targets.py

Installs LLaMA-Factory into an environment of its own (see `benchmarks/peers.py`) and calls its `init_adapter` on each
model. Only names and shapes matter, so the weights are random.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[3]
PACKAGES = ("llamafactory", "peft", "transformers")


def small_model(architecture: str) -> Any:
    """A model of random weights; of a model with a vision tower the class that LLaMA-Factory loads."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    from tests.core.methods.llama_factory.cases import ARCHITECTURES

    values = ARCHITECTURES[architecture]
    kind = AutoModelForImageTextToText if "vision_config" in values else AutoModelForCausalLM
    return kind.from_config(AutoConfig.for_model(**values | {"model_type": architecture}))


def inside() -> None:
    """Runs in LLaMA-Factory's environment."""
    sys.path.insert(0, str(ROOT))
    from llamafactory.hparams import FinetuningArguments, ModelArguments
    from llamafactory.model.adapter import init_adapter

    from tests.core.methods.llama_factory.cases import ARCHITECTURES, cases, trained_count, trained_names

    found: dict[str, dict[str, Any]] = {}
    for architecture in ARCHITECTURES:
        for case, keys in cases(architecture).items():
            model = small_model(architecture)
            # LLaMA-Factory reads the targets of OFT from lora_target too.
            options = {"lora_target" if key == "oft_target" else key: value for key, value in keys.items()}
            arguments = FinetuningArguments(**options)
            loading = ModelArguments(model_name_or_path=architecture)
            tuned = init_adapter(model.config, model, loading, arguments, is_trainable=True)
            one = {"trained": trained_names(tuned), "count": trained_count(tuned)}
            found.setdefault(architecture, {})[case] = one
    made = {"versions": {name: version(name) for name in PACKAGES}, "architectures": found}
    (HERE / "targets.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().inside:
        inside()
        return
    sys.path.insert(0, str(ROOT))
    from benchmarks.peers import FOLDER, peer_environment
    from benchmarks.processes import plain_environment

    peer_environment(FOLDER)
    command = [str(FOLDER / "bin" / "python"), __file__, "--inside"]
    subprocess.run(command, check=True, env=plain_environment())


if __name__ == "__main__":
    main()

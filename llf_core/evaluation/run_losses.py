"""Evaluation loss of a run's base model and of its result, computed as in the run.

`python -m llf_core.evaluation.run_losses RUN_ID` prints them as JSON.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from llf_core.config.registry import modifiers_of, stage_of
from llf_core.config.rules.conditions import names_reference
from llf_core.evaluation import worker_process
from llf_core.rewards.built_in import BUILT_IN
from llf_core.runs import create_run, open_run
from llf_core.runs.archive import copy_folder
from llf_core.runs.config_file import run_config
from llf_core.runs.foreign_code import code_of_functions, may_run
from llf_core.untrusted import is_folder

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.runs import RunFolder


MODULE = "llf_core.evaluation.run_losses"


@dataclass(frozen=True)
class Losses:
    """Evaluation losses of base model and result: means over supervised tokens, pairs or completions.

    BCO's running mean of rewards (`pref_bco_weight`) is not available here and is taken as 0 for both.
    """

    base: float
    tuned: float
    examples: int


def losses(folder: RunFolder, data: str | None = None) -> Losses:
    """Compute the evaluation loss of a finished run's base model and of its result, by the code of the run itself.

    Args:
        folder: run with `output/`.
        data: data set, as in `eval_dataset`; None for the run's evaluation data.

    Raises:
        FileNotFoundError: the run has no result yet.
        ValueError: the run has no evaluation data, and `data` is None.
    """
    if not folder.output.is_dir():
        raise FileNotFoundError(f"{folder.id} has no output yet. Expected a finished run. Wait for it, or resume it.")
    config = run_config(folder)
    own = [name for name in config.get("reward_functions") or () if name not in BUILT_IN]
    if own and (code := code_of_functions(folder, own)) is not None:
        may_run(code, folder.home, folder)
    if data is not None:
        config = config.replace(eval_dataset=data, val_size=0)
    if not (config.data.eval_dataset or config.data.val_size):
        raise ValueError(f"{folder.id} has no evaluation data. Pass a data set that it was not trained on.")
    base, examples = _loss(config, folder)
    free_memory()  # one model is in memory at a time
    tuned, _ = _loss(_of_output(config, folder), folder)
    return Losses(base, tuned, examples)


def _of_output(config: RunConfig, folder: RunFolder) -> RunConfig:
    """Config of a run that starts from the result of this one and uses this run's base as the reference model."""
    from llf_core.models.adapter_folder import without_adapter_folder

    config = with_explicit_reference(without_adapter_folder(config))
    if not (folder.output / "adapter_config.json").is_file():
        changed = [one.continued for one in modifiers_of(config)]
        continued = {key: value for one in changed for key, value in one.items()}
        return config.replace(model_name_or_path=str(folder.output), train_from_scratch=False, **continued)
    merged = list(config.model.adapter_name_or_path or ())
    if not config.get("create_new_adapter"):
        merged = merged[:-1]  # the last one is the trained one
    return config.replace(adapter_name_or_path=[*merged, str(folder.output)], create_new_adapter=None)


def with_explicit_reference(config: RunConfig) -> RunConfig:
    """Set the model before the first step as the reference model, if the stage's loss uses one.

    The result of a run is evaluated as the start of another, whose own reference would be the result itself.
    """
    if not stage_of(config).uses_reference(config) or names_reference(config):
        return config
    return config.replace(
        ref_model=config.model.model_name_or_path,
        ref_model_adapters=list(config.model.adapter_name_or_path or ()) or None,
        ref_model_quantization_bit=config.model.quantization_bit,
    )


def free_memory() -> None:
    """Free the memory of models that nothing refers to any more."""
    import gc

    import torch

    gc.collect()  # a trainer and its callbacks refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _loss(config: RunConfig, run: RunFolder) -> tuple[float, int]:
    """Mean loss and number of evaluation examples of the model that a run of this config starts from."""
    from llf_core.models import plan_device
    from llf_core.runs import RunWriter
    from llf_core.stages.base.stage import make_stage
    from llf_core.training.load_context import load_context
    from llf_core.training.make_trainer import make_trainer
    from llf_core.training.metrics_callback import MetricsCallback
    from llf_core.training.resolved_config import restore_resolved

    with tempfile.TemporaryDirectory(prefix="llf-") as home:
        folder = create_run(config.yaml(defaults=True), "evaluation", home, partial(_with_code, run))
        writer = RunWriter(folder)
        context = load_context(folder, config, writer, restore_resolved(run, plan_device(config)))
        trainer = make_trainer(context, make_stage(config, context), MetricsCallback(folder, writer), evaluates=True)
        found = trainer.evaluate()
        return float(found["eval_loss"]), context.data.report.eval_examples


def _with_code(run: RunFolder, new: RunFolder) -> None:
    if is_folder(run.code, run.path):
        copy_folder(run.code, new.code)


def losses_in_child(run_id: str, data: str | None = None, home: Path | None = None, *, trust: bool = False) -> Losses:
    """Call `losses` in a child process: the caller loads neither a model nor torch."""
    options = [] if data is None else [f"--data={data}"]
    return Losses(**worker_process.run_in_child(MODULE, run_id, *options, home=home, trust=trust, of=run_id))


def main() -> None:
    """Print the losses as a line of JSON, or the error: the child process of `losses_in_child`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_id")
    parser.add_argument("--data")
    asked = parser.parse_args()
    worker_process.print_result(lambda: asdict(losses(open_run(asked.run_id), asked.data)), of=asked.run_id)


if __name__ == "__main__":
    main()

"""`python -m llf_core.training.measure CONFIG`: makes a few real steps of a config, and keeps their speed and memory.

Prints one JSON object a line: `{"phase"}` while it works, then `{"seconds", "memory"}`, or `{"error"}`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.config import RunConfig
from llf_core.models.lazy_imports import deferred_imports, prepare_imports
from llf_core.runs import RunWriter, create_run
from llf_core.runs.process_log import log_to

if TYPE_CHECKING:
    from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

    from llf_core.data import Prepared
    from llf_core.estimate.past_runs import PastRun
    from llf_core.runs import RunFolder

logger = logging.getLogger("llf_core.training.measure")  # as the process, its name is `__main__`

STEPS, MOST_STEPS = 3, 9
"""Minimum and maximum steps of a measurement.

The first warms up and has the longest examples, the second takes the memory again that was released after the first;
the others are timed.
"""
TIMED_SECONDS = 6.0
"""Seconds that the timed steps take together at least, since short steps differ from each other."""
SETTINGS: dict[str, Any] = {
    "max_steps": MOST_STEPS,
    "logging_steps": 1,
    "save_strategy": "no",
    "eval_strategy": "no",
    "load_best_model_at_end": False,
    "early_stopping_steps": None,
    "output_dir": None,
    "train_sampling_strategy": "sequential",
}


def main(argv: list[str] | None = None) -> int:
    """Measure the config whose file is the only argument; returns the exit code: 0 measured, 1 failed."""
    (path,) = sys.argv[1:] if argv is None else argv
    log_to("stderr")
    try:
        config = RunConfig.load(Path(path))
        with tempfile.TemporaryDirectory(prefix="llf-measure-") as home:
            found = measure(config, Path(home))
    except Exception as error:  # libraries and plug-ins may raise anything, and a form shows the reason
        logger.exception("The measurement failed.")
        _tell(error=str(error).splitlines()[0] if str(error) else type(error).__name__)
        return 1
    if found is None:
        _tell(error="the steps could not be timed. Expected data for at least three steps.")
        return 1
    _tell(seconds=found.seconds, memory=found.memory)
    return 0


def measure(config: RunConfig, home: Path) -> PastRun | None:
    """Make three to nine steps of a config, and add their speed and memory to the table of past runs.

    Progress is printed as JSON lines `{"phase"}`. The process's random generators are seeded. `home` is an empty
    folder for the run, which the caller removes. None if there were too few steps to time.
    """
    short = config.replace(**SETTINGS)
    folder = create_run(short.yaml(defaults=True), "measurement", home)
    _tell(phase="importing")
    prepare_imports()
    with deferred_imports(short):
        from llf_core.models import plan_device
        from llf_core.stages.base.stage import make_stage
        from llf_core.training.load_context import load_context
        from llf_core.training.make_trainer import make_trainer
        from llf_core.training.memory_plan import decide_checkpointing
        from llf_core.training.past_run import add_to_past_runs, reset_peak
    writer = RunWriter(folder, 1)
    plan = plan_device(short)
    _tell(phase="reading the data and the model")
    context = load_context(folder, short, writer, plan)
    stage = make_stage(short, context)
    context = dataclasses.replace(context, data=_longest_first(context.data, short))
    chosen = decide_checkpointing(context, stage.auxiliary_models(), resumes=False)
    trainer = make_trainer(context, stage, _progress(folder, writer))
    trainer.add_callback(_enough_steps())
    reset_peak(plan.device)
    _tell(phase="making a few steps")
    trainer.train()
    original = dataclasses.replace(context, config=config)
    return add_to_past_runs(original, checkpointing=chosen.on, measured=True)


def _progress(folder: RunFolder, writer: RunWriter) -> Any:
    from llf_core.training.metrics_callback import MetricsCallback

    return MetricsCallback(folder, writer, keep=1)


def _enough_steps() -> TrainerCallback:
    """Callback that ends the measurement after `STEPS`, or when the timed steps have taken `TIMED_SECONDS`."""
    from transformers import TrainerCallback

    from llf_core.training.past_run import MEASURED_WARM_STEPS

    class EnoughSteps(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
        began = 0.0

        def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
            del args
            if state.global_step == MEASURED_WARM_STEPS:
                self.began = time.monotonic()
            elif state.global_step >= STEPS and time.monotonic() - self.began >= TIMED_SECONDS:
                control.should_training_stop = True

    return EnoughSteps()


def _longest_first(data: Prepared, config: RunConfig) -> Prepared:
    """Examples of the steps: the longest micro-batch, which needs the most memory, then random ones.

    Packed and streamed rows stay unchanged: each micro-batch has about as many tokens.
    """
    import numpy as np

    from llf_core.data import PackedRows
    from llf_core.data.example_store import lengths
    from llf_core.data.streaming import Stream

    if isinstance(data.train, PackedRows | Stream):
        return data
    batch = config.training.per_device_train_batch_size
    own = lengths(data.train)
    first = np.argsort(own)[::-1][:batch]
    others = np.setdiff1d(np.arange(len(own)), first)
    np.random.default_rng(config.training.seed).shuffle(others)
    wanted = MOST_STEPS * batch * config.training.gradient_accumulation_steps
    return dataclasses.replace(data, train=data.train.select([*first.tolist(), *others.tolist()][:wanted]))


def _tell(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

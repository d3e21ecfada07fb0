# ruff: noqa: ARG002 - a callback takes what the Trainer passes
"""A run's own trainer, which also counts the bytes of its tensors: `RUN_FOLDER OUT.json`.

The trainer is started as `llf_core.training.main` starts it. Weights and optimizer state are counted when a step has
ended, gradients before the optimizer steps; where they are freed in the backward pass, as each one arrives. Only the
first steps are counted, so that the later ones can be timed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from llf_core.models.lazy_imports import deferred_imports, prepare_imports
from llf_core.runs import RunFolder, read_status
from llf_core.runs.config_file import run_config

COUNTED = 2  # steps


def own_memory(name: str) -> int:
    """A line of this process's memory in bytes: `VmRSS`, `VmHWM` or `RssFile`."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise KeyError(name)


def main() -> int:
    """Trains the run and writes what was counted."""
    folder, out = RunFolder(Path(sys.argv[1])), Path(sys.argv[2])
    prepare_imports()
    with deferred_imports(run_config(folder)):
        from llf_core.training import make_trainer, session

    from transformers import TrainerCallback

    from benchmarks.tensors import model_tensors, nested, quantized, stored
    from llf_core.stages.base.loop import inner_optimizer

    found: dict[str, Any] = {"base": own_memory("VmRSS"), "gradients": 0, "optimizer": 0, "cpu": []}

    class Counter(TrainerCallback):
        """Keeps the largest sums."""

        def __init__(self, trainer: Any) -> None:
            self.trainer, self.began = trainer, 0.0
            self.parameters = list(trainer.model.parameters())
            trained = [one for one in self.parameters if one.requires_grad]
            found["trained"] = sum(one.numel() for one in trained)
            # Before the optimizer's own hooks, which free the gradient.
            self.hooks = [one.register_post_accumulate_grad_hook(lambda _: self.gradients()) for one in trained]

        def gradients(self) -> None:
            """Counts the gradients that are there."""
            there = stored(one.grad for one in self.parameters if one.grad is not None)
            found["gradients"] = max(found["gradients"], there)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Counts weights and optimizer state, and the processor time of the step."""
            found["cpu"].append(round(time.process_time() - self.began, 4))
            self.began = time.process_time()
            if state.global_step > COUNTED:
                return
            states = stored(nested(list(inner_optimizer(self.trainer.optimizer).state.values())))
            found["optimizer"] = max(found["optimizer"], states)
            found["weights"] = stored(model_tensors(self.trainer.model))
            found["quantized_bytes"], found["quantized_parameters"] = quantized(self.trainer.model)
            if state.global_step == COUNTED:
                for hook in self.hooks:
                    hook.remove()

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """The peak so far is that of loading; from here on it is counted anew (proc(5), `clear_refs`)."""
            found["peak_loaded"] = own_memory("VmHWM")
            found["loaded"], found["file_pages"] = own_memory("VmRSS"), own_memory("RssFile")
            Path("/proc/self/clear_refs").write_text("5")
            self.began = time.process_time()

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """The peak so far is that of training. Saving maps the written files to compare them, and comes later."""
            found["peak"] = own_memory("VmHWM")

    make = make_trainer.make_trainer

    def counting(*arguments: Any, **more: Any) -> Any:
        trainer = make(*arguments, **more)
        trainer.add_callback(Counter(trainer))
        return trainer

    vars(session)["make_trainer"] = counting
    code = session.run_attempt(folder, read_status(folder).attempt)
    out.write_text(json.dumps(found | {"peak_saved": own_memory("VmHWM")}))
    return code


if __name__ == "__main__":
    sys.exit(main())

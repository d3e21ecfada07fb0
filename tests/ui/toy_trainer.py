"""A process that behaves like a trainer towards its run folder, without training: `toy_trainer.py HOME [steps] [rate]`.

Prints the run's id, then appends `rate` steps a second, obeys stop and checkpoint, and closes the run.
"""

from __future__ import annotations

import math
import sys
import time

from llf_core.runs import Checkpoints, Inbox, RunFolder, RunWriter, create_run

CONFIG = """\
model_name_or_path: smollm2-135m-instruct
finetuning_type: lora
lora_rank: 8
dataset: alpaca_en_demo
num_train_epochs: 3
"""


def save(folder: RunFolder, writer: RunWriter, step: int) -> None:
    """Writes a small checkpoint that counts."""
    checkpoints = Checkpoints(folder)
    if checkpoints.complete(step):
        return
    path = checkpoints.path(step)
    path.mkdir(parents=True, exist_ok=True)
    (path / "adapter_model.safetensors").write_bytes(bytes(29_400))
    size = checkpoints.finish(step)
    writer.event("checkpoint", step=step, path=f"checkpoints/{path.name}", bytes=size)
    for removed in checkpoints.prune(keep=2):
        writer.event("checkpoint_removed", step=removed)


def main(home: str, steps: int = 141, rate: float = 5.0) -> None:
    """Writes one run from start to end."""
    folder = create_run(CONFIG, "smollm2-sft-lora", home)
    print(folder.id, flush=True)  # noqa: T201 - the test reads it
    writer = RunWriter(folder, 1)
    writer.start_heartbeat(0.5)
    writer.status(state="running", total=steps)
    writer.event("state", state="running")
    writer.event("data", examples=949, tokens=571_455, trained_tokens=431_943, truncated=3, dropped=1)
    writer.event("model", parameters=136_960_000, trainable=2_440_000, dtype="float32", device="cpu")
    inbox = Inbox(folder)
    with folder.log.open("a", encoding="utf-8") as log:
        for step in range(1, steps + 1):
            time.sleep(1 / rate)
            loss = 1.2 + 0.6 * math.exp(-step / 30) + 0.05 * math.sin(7.3 * step)
            values = {
                "loss": loss, "learning_rate": 2e-4 * min(1, step / 12) * (1 - step / (steps + 1)),
                "grad_norm": 0.6 + 0.9 * math.exp(-step / 6) + 0.1 * math.sin(3 * step), "epoch": 3 * step / steps,
                "tokens": 4053 * step, "trained_tokens": 3063 * step,
                "tokens_per_second": 1050 + 20 * math.sin(5 * step), "memory": 1.61e9, "step_seconds": 1 / rate,
            }  # fmt: skip
            writer.metric(step, values)
            writer.status(step=step, step_seconds=1 / rate)
            log.write(f"{time.strftime('%H:%M:%S')}  step {step:>5}/{steps}  loss {loss:.4f}  1,050 tokens/s\n")
            log.flush()
            if step % 15 == 0:
                evaluation = 1.29 + 0.45 * math.exp(-step / 25)
                writer.metric(step, {"eval_loss": evaluation})
                writer.event("evaluation", step=step, values={"eval_loss": evaluation})
                writer.status(best={"step": step, "value": evaluation, "metric": "eval_loss"})
                save(folder, writer, step)
            for request in inbox.scan():
                writer.event("request", id=request.id, request=request.type, args=request.args, by=request.by)
                save(folder, writer, step)
                ok = request.type in ("stop", "checkpoint")
                writer.event(
                    "answer",
                    id=request.id,
                    request=request.type,
                    ok=ok,
                    message=f"checkpoint-{step} is complete.",
                )
                inbox.done(request)
                if request.type == "stop":
                    writer.close("stopped", f"Stopped at step {step} of {steps} with checkpoint-{step}.")
                    return
    writer.close("finished")


if __name__ == "__main__":
    main(sys.argv[1], *(kind(value) for kind, value in zip((int, float), sys.argv[2:], strict=False)))

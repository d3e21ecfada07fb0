"""Settings with which another number of processes makes the same steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.config import RunConfig


def settings_of_processes(config: RunConfig, processes: int) -> dict[str, int]:
    """Settings that share the examples of a step among another number of processes, without larger batches per process.

    ```
    2 processes with batches of 2:  4 processes with batches of 1, or 1 with batches of 2 and 2 accumulation steps
    ```

    Raises:
        ValueError: these processes cannot make the same steps.
    """
    training, before = config.training, config.launch.num_processes
    batch, accumulation = training.per_device_train_batch_size, training.gradient_accumulation_steps
    if processes < 1:
        raise ValueError(f"num_processes is {processes}. Expected at least 1.")
    if processes == before:
        return {}
    if training.train_sampling_strategy == "group_by_length":
        raise ValueError(
            "`train_sampling_strategy: group_by_length` orders the examples by the batch size of each process: with "
            f"{processes} processes instead of {before}, some would be read twice. Resume with {before}."
        )
    whole = batch * before * accumulation
    share, left = divmod(whole, processes)
    if left or (training.dataloader_drop_last and batch * before % processes):
        fitting = [n for n in range(1, whole + 1) if not whole % n]
        if training.dataloader_drop_last:  # what an epoch drops depends on the size of a batch of all processes
            fitting = [n for n in fitting if not batch * before % n]
        raise ValueError(
            f"A step of this run has {whole} examples, which {processes} processes cannot share equally. Expected "
            f"num_processes to be one of {', '.join(map(str, fitting))}."
        )
    if training.dataloader_drop_last:
        size = batch * before // processes
    else:
        size = next(n for n in range(min(batch, share), 0, -1) if not share % n)
    return {
        "num_processes": processes,
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": share // size,
    }

"""A second engine for GGUF files: `python -P -m llf_core.export.gguf.transformers_process JOB.json`.

It computes with the dequantized weights; llama.cpp also rounds the inputs of each product to 8 bits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.export.gguf.loss_of_quality import Probe, quality_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


def measure(gguf: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Loss of quality of a file (attributes of `QualityLoss`) against the base that llama.cpp has measured.

    Empty if transformers does not know the architecture or the quantization.

    Args:
        job: the probe (`questions`, `answers` and `text`, see `Probe`), `base` (path of the base's logits, as
            `write_base` wrote them) and `width` (size of the vocabulary).
    """
    import torch

    from llf_core.models.gguf_conversion import cached_gguf_reader, read_gguf_model
    from llf_core.models.lazy_imports import no_progress_bars

    try:
        with no_progress_bars(), cached_gguf_reader():
            model: Any = read_gguf_model(gguf, torch.float32).eval()
    except ValueError:
        return {}

    def logits(ids: Sequence[int], first: int) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = model(input_ids=torch.tensor([list(ids)])).logits[0, first:].numpy()
        return found

    probe = Probe(job["questions"], job["answers"], job["text"])
    return vars(quality_loss(probe, logits, Path(job["base"]), job["width"]))


def perform(job: dict[str, Any]) -> dict[str, Any]:
    """Measure each file of a job, one after the other; returns `by` (the program) and `rows` (by quantization)."""
    import torch
    import transformers

    torch.set_num_threads(job["threads"])
    rows = {name: measure(Path(gguf), job) for name, gguf in job["files"].items()}
    return {"by": f"transformers {transformers.__version__}", "rows": rows}


def main() -> None:
    """Read the job, and write the result into its file."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(job["result"]).write_text(json.dumps(perform(job)), encoding="utf-8")


if __name__ == "__main__":
    main()

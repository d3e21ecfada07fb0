"""Quantizes a model folder: `python -P -m llf_core.export.quantize_process JOB.json`, in a process of its own."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

GROUP = 128
"""Values of a row that share a scale in 4 bits; 32 where rows are not a multiple of it."""
SMALL_GROUP = 32
BITS = 4
NUMBER, MATRIX = re.compile(r"\.[0-9]+\."), 2
"""Infix in the names of a layer's weights, and dimensions of a matrix."""
LAYOUTS = {"gptq": "auto_round:auto_gptq", "awq": "auto_awq"}
"""auto-round's name of each layout.

GPTQ's is declared as auto-round's, by which transformers, vLLM and SGLang read it: transformers needs two packages
more, optimum and gptqmodel, for one that is declared as GPTQ.
"""


def group_size(folder: Path) -> int:
    """Values of a row that share a scale in 4 bits: `SMALL_GROUP` where a row is not a multiple of `GROUP`.

    torchao would silently leave out such a row.
    """
    from safetensors import safe_open

    shapes = []
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "numpy") as tensors:
            shapes += [tensors.get_slice(name).get_shape() for name in tensors.keys() if NUMBER.search(name)]  # noqa: SIM118
    return GROUP if all(shape[-1] % GROUP == 0 for shape in shapes if len(shape) == MATRIX) else SMALL_GROUP


def quantize_by_torchao(job: dict[str, Any]) -> None:
    """Quantize the linear layers by torchao, and write the model: to 8 bits on the CPU, to 4 bits on a GPU.

    Args:
        job: `format` (`int8` or `int4`), `folder` of the merged model, `target` folder, `loader` (class of
            transformers), `trust` (whether the model's own code is used) and `shard_bytes` (maximum size of a weight
            file, in bytes).
    """
    import transformers
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    if job["format"] == "int8":
        kind: Any = Int8WeightOnlyConfig(version=2)
    else:
        kind = Int4WeightOnlyConfig(group_size=group_size(Path(job["folder"])))
    model = getattr(transformers, job["loader"]).from_pretrained(
        job["folder"],
        dtype="auto",
        device_map="cpu" if job["format"] == "int8" else "cuda",
        quantization_config=transformers.TorchAoConfig(quant_type=kind),
        trust_remote_code=job["trust"],
        local_files_only=True,
    )
    model.save_pretrained(job["target"], max_shard_size=job["shard_bytes"])


def _quantize_by_auto_round(job: dict[str, Any]) -> None:
    """Round the linear layers to the nearest of 16 values by auto-round, to the `format` `gptq` or `awq` of the job."""
    import transformers
    from auto_round import AutoRound

    arguments = {"trust_remote_code": job["trust"], "local_files_only": True}
    model = getattr(transformers, job["loader"]).from_pretrained(job["folder"], dtype="auto", **arguments)
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["folder"], **arguments)
    rounding = AutoRound(
        model,
        tokenizer,
        bits=BITS,
        group_size=group_size(Path(job["folder"])),
        sym=job["format"] == "gptq",
        iters=0,
        disable_opt_rtn=True,
        device_map="cpu",
    )
    work = Path(job["target"]).with_name(".auto-round")
    rounding.quantize_and_save(str(work), format=LAYOUTS[job["format"]], max_shard_size=job["shard_bytes"])
    # it writes into a folder of this folder, named after the model
    (made,) = {path.parent for path in work.rglob("config.json")}
    made.replace(job["target"])
    shutil.rmtree(work, ignore_errors=True)


def main() -> None:
    """Read the job, quantize, and write an empty result: its file tells `gguf.program.run` that the work is done."""
    import torch

    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    (_quantize_by_auto_round if job["format"] in LAYOUTS else quantize_by_torchao)(job)
    Path(job["result"]).write_text("{}", encoding="utf-8")


if __name__ == "__main__":
    main()

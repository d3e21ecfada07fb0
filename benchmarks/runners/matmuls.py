"""The bare matrix products of one LoRA step: `MODEL_FOLDER TOKENS TRAINED RANK REPEATS OUT.json`.

Plain tensors in bfloat16 at the shapes of one micro-batch: forward and input gradient of each frozen linear (not of
the first layer's q, k and v, whose inputs are frozen too), five products of each adapter (two forward; the gradients
of both matrices and what lies between them; the adapter's share of the input gradient is not counted, which makes the
sum a little too small and the step look a little too slow), and the head with its gradient at the trained positions.
No attention, norms, activations, loss or optimizer.
"""

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own short name
from transformers import AutoConfig


def linears(config: Any) -> list[tuple[int, int]]:
    """Inputs and outputs of q, k, v, o, gate, up and down."""
    hidden, inner = config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or hidden // config.num_attention_heads
    queries, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    return [(hidden, queries), (hidden, keys), (hidden, keys), (queries, hidden),
            (hidden, inner), (hidden, inner), (inner, hidden)]  # fmt: skip


class Products:
    """The products of one micro-batch."""

    def __init__(self, config: Any, tokens: int, trained: int, rank: int) -> None:
        def new(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, dtype=torch.bfloat16) / shape[-1] ** 0.5

        shapes = linears(config)
        self.layers = [
            [(new(n, k), new(rank, k), new(n, rank)) for k, n in shapes] for _ in range(config.num_hidden_layers)
        ]
        self.inner = new(tokens, rank)
        self.x = {size: new(tokens, size) for pair in shapes for size in pair}
        self.head, self.rows = new(config.vocab_size, config.hidden_size), new(trained, config.hidden_size)

    def run(self) -> float:
        """Seconds of all of them, once."""
        start = time.perf_counter()
        for layer in self.layers:
            for weight, a, b in layer:
                x = self.x[weight.shape[1]]
                F.linear(x, weight)
                F.linear(F.linear(x, a), b)
        logits = F.linear(self.rows, self.head)
        torch.mm(logits, self.head)
        for number, layer in enumerate(self.layers):
            for place, (weight, _, b) in enumerate(layer):
                x, gradient = self.x[weight.shape[1]], self.x[weight.shape[0]]
                if number or place > 2:
                    torch.mm(gradient, weight)
                between = torch.mm(gradient, b)
                torch.mm(between.t(), x)
                torch.mm(gradient.t(), self.inner)
        return time.perf_counter() - start


def main() -> None:
    folder, tokens, trained, rank, repeats, out = sys.argv[1:]
    products = Products(AutoConfig.from_pretrained(folder), int(tokens), int(trained), int(rank))
    products.run()
    took = [products.run() for _ in range(int(repeats))]
    Path(out).write_text(json.dumps({"seconds": statistics.median(took), "all": took}))


if __name__ == "__main__":
    main()

"""Writes the goldens: 20 steps of the original libraries on the gradients of `problem.npz`.

Run it from the root of the repository as `python -m tests.core.optimizers.goldens.make`, in an environment with torch
and transformers, and `pip install --no-deps galore-torch==1.0 badam==1.4 adam-mini==1.1.1 pytorch-optimizer==4.1.0
grokadamw==0.1.2 torch-optimi==0.3.3 schedulefree==1.4.1`.
"""

import sys
from importlib.metadata import version

import numpy as np
import torch

from tests.core.optimizers.problem import GOLDENS, MATRICES, RATE, SHAPES, STEPS, backward, model, numbers, rate, run

DECAY = 0.1
EPSILON = dict.fromkeys(("std", "reverse_std", "right", "left"), 1e-8) | {"full": 1e-3}
"""Projected on both sides, a gradient is diagonal at first; a small ε would amplify the rest, which is rounding."""
SIDES = ("std", "reverse_std", "right", "left", "full")


def problem() -> None:
    drawn = np.random.default_rng(0)
    stored = {name: drawn.standard_normal(shape).astype(np.float32) * 0.2 for name, shape in SHAPES.items()}
    for name, shape in SHAPES.items():
        stored[f"grad.{name}"] = drawn.standard_normal((STEPS, *shape)).astype(np.float32)
    np.savez_compressed(GOLDENS / "problem.npz", **stored)


def split(root, settings, decay=DECAY):
    """The matrices of the layers with settings, then all other parameters; norms are not decayed."""
    named = dict(root.named_parameters())
    others = [one for name, one in named.items() if name not in MATRICES and one.dim() > 1]
    norms = [one for name, one in named.items() if one.dim() == 1]
    return [
        {"params": [named[name] for name in MATRICES], "weight_decay": decay, **settings},
        {"params": others, "weight_decay": decay},
        {"params": norms, "weight_decay": 0.0},
    ]


def galore(side, optimizer="GaLoreAdamW", decay=DECAY, **more):
    import galore_torch

    root = model()
    groups = split(root, {"rank": 3, "update_proj_gap": 5, "scale": 0.5, "proj_type": side}, decay)
    return run(root, getattr(galore_torch, optimizer)(groups, lr=RATE, **more))


def apollo(scale_type):
    """With a square orthogonal projection, where `PᵀPG = G`, and without weight decay.

    pytorch-optimizer scales the projected gradient and projects it back, where the paper scales the gradient itself;
    and it scales the weight decay by the bias correction of Adam.
    """
    from pytorch_optimizer import APOLLO
    from pytorch_optimizer.optimizer.utils.galore import GaLoreProjector

    root = model()
    settings = {"rank": 8, "update_proj_gap": 5, "scale": 1.0, "projection_type": "std"}

    def orthogonal(_self, weights, projection_type, from_random_matrix=False):
        return square(weights.shape[1 if projection_type == "right" else 0])

    kept, GaLoreProjector.get_orthogonal_matrix = GaLoreProjector.get_orthogonal_matrix, orthogonal
    optimizer = APOLLO(split(root, settings, 0.0), lr=RATE, eps=1e-8, scale_type=scale_type, foreach=False)
    found = run(root, optimizer)
    GaLoreProjector.get_orthogonal_matrix = kept
    return found


def square(size):
    """An orthogonal matrix, the same for the same size."""
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(size)))[0]


def badam(mode, start=None):
    from badam import BlockOptimizer

    root = model()
    base = torch.optim.AdamW(root.parameters(), lr=RATE, weight_decay=DECAY)
    optimizer = BlockOptimizer(
        base, list(root.named_parameters()), switch_block_every=4, start_block=start, switch_mode=mode, verbose=0
    )
    return run(root, optimizer)


def badam_shares(mask):
    from badam import BlockOptimizerRatio, block_optim

    root = model()
    block_optim.torch.cuda.empty_cache = lambda: None
    named = [(name, one) for name, one in root.named_parameters()]
    optimizer = BlockOptimizerRatio(
        [{"params": [one for _, one in named], "weight_decay": 0.0}], named, update_ratio=0.3, switch_every=100,
        mask_mode=mask, keep_mask=False, lr=RATE,
    )  # fmt: skip
    for place, name in enumerate(SHARED):
        optimizer.sparse_dict[root.get_parameter(name)]["seed"] = place
    stored = numbers()

    def step(number):
        for name, parameter in named:
            parameter.grad = None
            if name in SHARED:
                parameter.grad = torch.from_numpy(stored[f"grad.{name}"][number].copy())
                optimizer.sparse_hook(parameter)
        optimizer.step()

    return run(root, optimizer, step)


SHARED = tuple(name for name in MATRICES if int(np.prod(SHAPES[name])) >= 100)
"""Parameters of at least 100 values: the package updates smaller ones whole, or fails on them."""


def adam_mini():
    from adam_mini import Adam_mini

    root = model()
    optimizer = Adam_mini(root.named_parameters(), lr=RATE, weight_decay=DECAY, dim=8, n_heads=2, verbose=False)
    return run(root, optimizer)


def muon():
    root = model()
    named = dict(root.named_parameters())
    first = torch.optim.Muon(
        [named[name] for name in MATRICES], lr=RATE, weight_decay=DECAY, adjust_lr_fn="match_rms_adamw"
    )
    decayed = [one for name, one in named.items() if name not in MATRICES and one.dim() > 1]
    norms = [one for one in named.values() if one.dim() == 1]
    second = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": DECAY}, {"params": norms, "weight_decay": 0.0}], lr=RATE
    )

    def step(number):
        for group in (*first.param_groups, *second.param_groups):
            group["lr"] = rate(number)
        first.step()
        second.step()

    return run(root, first, step)


def lomo(kind):
    import pytorch_optimizer

    root = model()
    more = {"weight_decay": DECAY} if kind == "AdaLOMO" else {}
    optimizer = getattr(pytorch_optimizer, kind)(root, lr=RATE, **more)

    def step(number):
        optimizer.lr = rate(number)
        if kind == "AdaLOMO":
            optimizer.num_steps += 1
            optimizer.loss_scale = 0.0
        for parameter in root.parameters():
            parameter.grad = None
        backward(root, number)
        optimizer.grad_func(0)

    return run(root, optimizer, step)


def schedule_free(kind):
    import pytorch_optimizer
    import schedulefree

    root = model()
    if kind == "radam":
        optimizer = schedulefree.RAdamScheduleFree(
            root.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=DECAY, foreach=False
        )
        optimizer.train()
    else:
        names = {"adamw": "ScheduleFreeAdamW", "sgd": "ScheduleFreeSGD"}
        more = {"betas": (0.9, 0.95)} if kind == "adamw" else {}
        optimizer = getattr(pytorch_optimizer, names[kind])(
            root.parameters(), lr=RATE, weight_decay=DECAY, foreach=False, **more
        )
    found = run(root, optimizer)
    optimizer.eval()
    return found | {f"{name}@average": one.detach().numpy().copy() for name, one in root.named_parameters()}


def stable_adamw():
    from optimi import StableAdamW

    root = model()
    optimizer = StableAdamW(
        root.parameters(), lr=RATE, betas=(0.9, 0.99), eps=1e-8, weight_decay=DECAY, foreach=False, triton=False
    )
    return run(root, optimizer)


def grokadamw():
    from grokadamw import GrokAdamW

    root = model()
    return run(root, GrokAdamW(root.parameters(), lr=RATE, weight_decay=DECAY))


def main() -> None:
    problem()
    found = {f"galore_{side}": galore(side, eps=EPSILON[side], no_deprecation_warning=True) for side in SIDES}
    found["galore_adafactor"] = galore("std", "GaLoreAdafactor", 0.0, scale_parameter=False, relative_step=False)
    found |= {f"apollo_{kind}": apollo(kind) for kind in ("channel", "tensor")}
    found |= {f"badam_{mode}": badam(mode) for mode in ("ascending", "descending")} | {"badam_fixed": badam("fixed", 1)}
    found |= {f"badam_{mask}": badam_shares(mask) for mask in ("adjacent", "scatter")}
    found |= {"adam_mini": adam_mini(), "muon": muon(), "lomo": lomo("LOMO"), "adalomo": lomo("AdaLOMO")}
    found |= {f"schedule_free_{kind}": schedule_free(kind) for kind in ("adamw", "sgd", "radam")}
    found |= {"stable_adamw": stable_adamw(), "grokadamw": grokadamw()}
    for name, weights in found.items():
        np.savez_compressed(GOLDENS / f"{name}.npz", **weights)
    packages = ("galore-torch", "badam", "adam-mini", "pytorch-optimizer", "grokadamw", "torch-optimi", "schedulefree")
    sys.stdout.write("".join(f"{name} {version(name)}\n" for name in (*packages, "torch")))


if __name__ == "__main__":
    main()

"""What no original library can be asked: APOLLO as its paper has it, BAdam's blocks, masters and averages."""

import numpy as np
import pytest
import torch
from torch import nn

from llf_core.optimizers import per_parameter
from llf_core.optimizers.adam_variants import AnyPrecisionOptimizer, add_exactly, unbiased_decay
from llf_core.optimizers.badam import BlockOptimizer
from llf_core.optimizers.low_rank import DIRECTIONS, ApolloOptimizer, ProjectedOptimizer, find_projections
from llf_core.optimizers.moments import adafactor_direction
from llf_core.optimizers.optimizer import OptimizerError
from llf_core.optimizers.per_parameter import sum_of_squares
from llf_core.optimizers.schedule_free import ScheduleFreeOptimizer

ADAM = {"lr": 0.01, "betas": (0.9, 0.999), "eps": 1e-8}


@pytest.fixture(autouse=True)
def cache_of_the_compiler(monkeypatch, tmp_path):
    """torch sets it when it is first asked for."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))


def gradients(*shape):
    return np.random.default_rng(3).standard_normal((12, *shape))


@pytest.mark.parametrize(("kind", "shape"), [("channel", (10, 6)), ("channel", (6, 10)), ("tensor", (6, 10))])
def test_apollo_is_algorithm_1_of_its_paper(kind, shape):
    """In float64, with the projections that the optimizer draws: rank 2, renewed every 5 steps."""
    settings = {
        "rank": 2, "interval": 5, "scale": 4.0, "side": "std", "random": True, "by_channel": kind == "channel",
        "scale_front": False, "weight_decay": 0.1,
    }  # fmt: skip
    weight = nn.Parameter(torch.ones(shape))
    optimizer = ApolloOptimizer([{"params": [weight], **settings}], ADAM, seed=5)
    expected, first, second, before = np.ones(shape), 0.0, 0.0, None
    drawn = []
    for step, gradient in enumerate(gradients(*shape), start=1):
        state = {"step": step - 1}
        side = "right" if shape[0] >= shape[1] else "left"
        matrix = optimizer.projection(weight, torch.zeros(shape), state, settings, side).double().numpy()
        drawn.append(matrix)
        weight.grad = torch.from_numpy(gradient).float()
        optimizer.step()
        small = gradient @ matrix.T if side == "right" else matrix.T @ gradient
        first, second = 0.9 * first + 0.1 * small, 0.999 * second + 0.001 * small**2
        ratio = first / (np.sqrt(second) + 1e-8)
        axis = None if kind == "tensor" else 1 if side == "right" else 0
        norms = [np.sqrt((one**2).sum(axis=axis, keepdims=True)) for one in (ratio, small)]
        update = gradient * norms[0] / norms[1]
        norm = np.sqrt((update**2).sum())
        if before is not None and norm > 1.01 * before:  # the growth of the norm is limited
            update, norm = update * 1.01 * before / norm, 1.01 * before
        before = norm
        correction = np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        expected -= 0.01 * correction * 2.0 * update
        expected *= 1 - 0.01 * 0.1
    assert np.abs(weight.detach().numpy() - expected).max() < 1e-5
    assert all(np.array_equal(drawn[0], one) for one in drawn[:5])
    assert not np.array_equal(drawn[4], drawn[5])


def test_apollo_moves_a_matrix_that_had_no_gradient_at_first():
    """The growth of an update is limited to that of the one before, and there was none, as of an unused expert."""
    settings = {
        "rank": 2, "interval": 5, "scale": 1.0, "side": "std", "random": True, "by_channel": True,
        "scale_front": False, "weight_decay": 0.0,
    }  # fmt: skip
    weight = nn.Parameter(torch.ones(2, 6, 10))
    optimizer = ApolloOptimizer([{"params": [weight], **settings}], ADAM, seed=5)
    gradient = torch.from_numpy(gradients(6, 10)[0]).float()
    for used in (0.0, 1.0):
        before = weight.detach().clone()
        weight.grad = torch.stack([gradient, used * gradient])
        optimizer.step()
    late, whole = (weight.detach() - before)[1], (weight.detach() - before)[0]
    assert late.norm() > 0.1 * whole.norm()


def test_random_projections_keep_norms_on_average():
    """`E[PᵀP] = I`: values are drawn from N(0, 1/r)."""
    weight = nn.Parameter(torch.zeros(400, 50))
    settings = {"rank": 8, "interval": 1, "random": True}
    optimizer = ApolloOptimizer([{"params": [weight], "weight_decay": 0.0}], ADAM, seed=0)
    total = torch.zeros(50, 50)
    for step in range(400):
        matrix = optimizer.projection(weight, weight, {"step": step}, settings, "right")
        assert matrix.shape == (8, 50)
        total += matrix.T @ matrix / 400
    assert (total - torch.eye(50)).abs().max() < 0.12
    assert total.diagonal().mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("side", ["std", "reverse_std", "right", "left", "full"])
def test_galore_of_full_rank_is_adamw_in_another_basis_and_of_experts_expert_by_expert(side):
    """Three experts as one parameter of three axes move as three matrices do."""
    settings = {"rank": 3, "interval": 4, "scale": 1.0, "side": side, "weight_decay": 0.0}
    together = nn.Parameter(torch.ones(3, 8, 6))
    apart = [nn.Parameter(torch.ones(8, 6)) for _ in range(3)]
    defaults = ADAM | {"eps": 1e-3}
    one = ProjectedOptimizer([{"params": [together], **settings}], defaults, direction=DIRECTIONS["adamw_torch"])
    other = ProjectedOptimizer([{"params": apart, **settings}], defaults, direction=DIRECTIONS["adamw_torch"])
    for gradient in gradients(3, 8, 6):
        together.grad = torch.from_numpy(gradient).float()
        for expert, own in zip(apart, gradient, strict=True):
            expert.grad = torch.from_numpy(own).float()
        one.step()
        other.step()
    assert (together - torch.stack(list(apart))).abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(120, 60), (60, 120), (2, 40, 80)])
def test_a_randomized_svd_finds_the_top_singular_vectors(shape):
    """Singular values fall as 1/n, so that the space of the first 8 is well defined."""
    torch.manual_seed(3)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = (u / torch.arange(1, u.shape[-1] + 1)) @ v
    exact, found = (find_projections(matrix, 8, "full", randomized=one) for one in (False, True))
    for side, overlap in (
        ("left", exact["left"].mT @ found["left"]),
        ("right", exact["right"] @ found["right"].mT),
    ):
        assert found[side].shape == exact[side].shape
        assert ((torch.linalg.matrix_norm(overlap).square() / 8 - 1).abs() < 1e-3).all()
    assert (found["left"].mT @ found["left"] - torch.eye(8)).abs().max() < 1e-5
    again = find_projections(matrix, 8, "full", randomized=True)
    assert torch.equal(found["left"], again["left"])


def test_squares_are_summed_in_float32_part_by_part(monkeypatch):
    monkeypatch.setattr(per_parameter, "PART", 100)
    tensor = torch.randn(33, 30).bfloat16()
    assert sum_of_squares(tensor).item() == pytest.approx(tensor.double().square().sum().item(), rel=1e-5)


@pytest.mark.parametrize("randomized", [False, True])
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_has_no_projection(value, randomized):
    """LAPACK decomposes a wide matrix with one infinite value without an error, into vectors of NaN."""
    for shape in ((40, 40), (8, 200), (200, 8)):
        one = torch.randn(shape)
        one[0, 5] = value
        for gradient in (one, torch.full(shape, value)):
            with pytest.raises(OptimizerError, match="not finite"):
                find_projections(gradient, 4, "std", randomized=randomized)


def blocks_of(mode, dtype=torch.float32, interval=2, start=None, count=4):
    blocks = [{f"model.layers.{number}.weight": nn.Parameter(torch.ones(4, dtype=dtype))} for number in range(count)]
    parameters = [one for block in blocks for one in block.values()]
    groups = [{"params": parameters, "weight_decay": 0.0}]
    return parameters, BlockOptimizer(groups, ADAM, blocks=blocks, mode=mode, interval=interval, start=start, seed=1)


def visited(optimizer, parameters, steps):
    order = []
    for _ in range(steps):
        order.append([one.requires_grad for one in parameters].index(True))
        assert sum(one.requires_grad for one in parameters) == 1
        parameters[order[-1]].grad = torch.ones_like(parameters[order[-1]])
        optimizer.step()
    return order


def test_blocks_follow_each_other():
    # The first block has one step less than the interval, as in the authors' package.
    assert visited(*blocks_of("ascending")[::-1], steps=8) == [0, 1, 1, 2, 2, 3, 3, 0]
    assert visited(*blocks_of("descending")[::-1], steps=6) == [3, 2, 2, 1, 1, 0]
    assert visited(*blocks_of("ascending", start=2)[::-1], steps=4) == [2, 3, 3, 0]
    assert visited(*blocks_of("fixed", start=1)[::-1], steps=5) == [1] * 5
    assert visited(*blocks_of("ascending", interval=-1)[::-1], steps=5) == [0] * 5


def test_random_blocks_are_each_visited_once_a_round_and_in_another_order_in_the_next():
    parameters, optimizer = blocks_of("random", interval=1, count=6)
    order = visited(optimizer, parameters, 24)
    rounds = [order[begin : begin + 6] for begin in range(0, 24, 6)]
    assert all(sorted(one) == list(range(6)) for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_bfloat16_weights_have_float32_copies_of_the_block_alone():
    """Updates of 1e-4 of a weight of 1 are lost in bfloat16, whose next number below is 1 - 1/256."""
    parameters, optimizer = blocks_of("ascending", torch.bfloat16, interval=100)
    optimizer.param_groups[0]["lr"] = 1e-4
    for _ in range(60):
        parameters[0].grad = torch.ones_like(parameters[0])
        optimizer.step()
    assert optimizer.state[parameters[0]]["master"] == pytest.approx([1 - 60e-4] * 4, abs=1e-5)
    assert parameters[0].tolist() == [1 - 1 / 128 + 1 / 256] * 4 or parameters[0].tolist() == [1 - 2 / 256] * 4
    assert set(optimizer.state) == {parameters[0]}


def test_a_state_is_loaded_in_the_dtype_that_it_was_saved_in():
    parameters, optimizer = blocks_of("ascending", torch.bfloat16, interval=100)
    parameters[0].grad = torch.ones_like(parameters[0])
    optimizer.step()
    others, loaded = blocks_of("ascending", torch.bfloat16, interval=100)
    loaded.load_state_dict(optimizer.state_dict())
    assert {name: value.dtype for name, value in loaded.state[others[0]].items() if name != "step"} == dict.fromkeys(
        ("master", "exp_avg", "exp_avg_sq"), torch.float32
    )
    assert torch.equal(loaded.state[others[0]]["master"], optimizer.state[parameters[0]]["master"])


def test_the_average_of_schedule_free_sgd_by_hand():
    """With a constant rate all weights are equal, so `x` is the mean of the `z` of all steps; β₁ is 0.9."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    defaults = {"lr": 0.5, "betas": (0.9, 0.0), "eps": 1e-8, "power": 0.0, "lr_power": 2.0}
    optimizer = ScheduleFreeOptimizer([{"params": [weight], "weight_decay": 0.0}], defaults, kind="sgd")
    z, zs = 0.0, []
    for gradient in (1.0, -3.0, 2.0, 0.5):
        weight.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
        z -= 0.5 * gradient
        zs.append(z)
        assert weight.item() == pytest.approx(0.1 * z + 0.9 * np.mean(zs))
    before = weight.item()
    optimizer.eval()
    assert weight.item() == pytest.approx(np.mean(zs))
    optimizer.eval()
    optimizer.train()
    assert weight.item() == before


def test_kahan_summation_adds_what_rounding_loses():
    weight, lost = torch.ones(1, dtype=torch.bfloat16), torch.zeros(1)
    for _ in range(1000):
        add_exactly(weight, torch.full((1,), -1e-4), lost)
    assert weight.item() == pytest.approx(0.9, abs=1 / 256)


def test_any_precision_in_float32_is_torchs_adamw():
    ours, theirs = (nn.Parameter(torch.ones(5, 3)) for _ in range(2))
    dtypes = {"kahan_sum": False, "momentum_dtype": "float32", "variance_dtype": "float32"}
    optimizer = AnyPrecisionOptimizer([{"params": [ours], "weight_decay": 0.1}], ADAM | dtypes, layerwise=False)
    reference = torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1)
    for gradient in gradients(5, 3):
        ours.grad, theirs.grad = (torch.from_numpy(gradient).float() for _ in range(2))
        optimizer.step()
        reference.step()
    assert (ours - theirs).abs().max() < 1e-6


def test_the_decay_of_stable_adamw_has_no_bias():
    """The first mean is the first value, and the second of 1 and 3 with β = 0.5 is (0.5 · 1 + 3) / 1.5."""
    mean = 1.0
    assert unbiased_decay(0.5, 1) == 0
    decay = unbiased_decay(0.5, 2)
    assert decay * mean + (1 - decay) * 3 == pytest.approx((0.5 * 1 + 3) / 1.5)


def test_a_decomposition_takes_one_thread_and_gives_the_others_back(monkeypatch):
    """Threads that wait for busy cores at each of its small products made it twenty times as slow."""
    before = torch.get_num_threads()
    used = []
    svd = torch.linalg.svd
    monkeypatch.setattr(torch.linalg, "svd", lambda *a, **k: used.append(torch.get_num_threads()) or svd(*a, **k))
    torch.set_num_threads(2)
    try:
        find_projections(torch.randn(8, 16), 2, "std")
        assert torch.get_num_threads() == 2
        with pytest.raises(OptimizerError, match="not finite"):
            find_projections(torch.full((8, 16), torch.nan), 2, "std")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert used == [1, 1]


def test_adafactor_does_not_factor_a_scalar():
    """A scalar parameter, such as CLIP's `logit_scale`, has the updates of a vector with its one value."""
    scalar, vector = {}, {}
    for gradient in (0.5, -2.0, 0.25):
        found = adafactor_direction(torch.tensor(gradient), scalar, {})
        assert found.shape == ()
        assert torch.equal(found, adafactor_direction(torch.tensor([gradient]), vector, {})[0])

"""Learning from preferences without a reward model: DPO (arXiv 2305.18290) and its family, see `preference/`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.registry import Stage
from llf_core.config.rule import Rule
from llf_core.config.stage import REFERENCE_FREE, names_reference
from llf_core.stages.losses import LOSSES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from llf_core.config import RunConfig
    from llf_core.stages.logprobs import Answers
    from llf_core.stages.losses import Pairs

SMOOTHED = tuple(name for name, loss in LOSSES.items() if loss.smooths)
PAPER_TAU = 0.05
LEVEL_TAU = (1 - math.log(2)) / 3
"""At this `discopop_tau` the loss is level where the policy equals its reference: the root of its slope there."""


class DPOOptions(Section):
    """What is made of the log-probabilities of two answers."""

    pref_loss: Literal[
        "sigmoid", "hinge", "ipo", "kto_pair", "orpo", "simpo", "robust", "exo_pair", "apo_zero", "apo_down",
        "sppo_hard", "nca_pair", "bco_pair", "discopop", "aot", "aot_unpaired",
    ] = option(
        "sigmoid",
        label="Preference loss",
        help="Loss formula. `sigmoid` is DPO's own; `orpo` and `simpo` need no reference model.",
        choices=tuple(LOSSES),
        level="basic",
        source="LLaMA-Factory",
    )  # fmt: skip
    dpo_label_smoothing: float = option(
        0.0,
        label="Label smoothing",
        help="Assumed probability that the preference of a pair is flipped. 0 trusts all pairs.",
        minimum=0,
        below=0.5,
        source="LLaMA-Factory",
    )
    simpo_gamma: float = option(
        0.5,
        label="SimPO margin",
        help="Target reward margin γ of `simpo`.",
        minimum=0,
        source="LLaMA-Factory",
    )
    discopop_tau: float = option(
        0.05,
        label="DiscoPOP temperature",
        help="Temperature τ of `discopop`: how sharply it switches between its two losses.",
        above=0,
        maximum=1,
        source="Hugging Face",
    )
    pref_bco_weight: float = option(
        0.0,
        label="BCO loss weight",
        help="Adds the BCO loss, which looks at each answer alone, with this weight.",
        minimum=0,
        source="LLaMA-Factory",
    )
    ld_alpha: float | None = option(
        None,
        unset="1",
        label="Length desensitization",
        help="LD-DPO: weight of tokens beyond the length of the shorter answer. Default: 1.",
        minimum=0,
        maximum=1,
        source="LLaMA-Factory",
    )


def _chosen(config: RunConfig) -> bool:
    return config.stage.stage == "dpo"


def _one_pair(config: RunConfig) -> bool:
    return _chosen(config) and config.training.per_device_train_batch_size == 1


class DPO(Stage):
    """Makes the better of two answers likelier, and the other less likely, measured against a reference."""

    name: ClassVar[str] = "dpo"
    label: ClassVar[str] = "dpo (the better of two answers)"
    data_kind: ClassVar[str] = "pairs"
    label_names: ClassVar[tuple[str, ...]] = ("targets",)
    Options: ClassVar[type[Section]] = DPOOptions
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            ("dpo_label_smoothing", "pref_loss"),
            lambda c: _chosen(c) and c.get("dpo_label_smoothing") > 0 and c.get("pref_loss") not in SMOOTHED,
            lambda c: (
                f"With pref_loss {c.get('pref_loss')} there is no label smoothing, and dpo_label_smoothing is "
                f"{c.get('dpo_label_smoothing'):g}. Expected 0, or one of {', '.join(SMOOTHED)}."
            ),
            (Fix("No smoothing", {"dpo_label_smoothing": 0.0}), Fix("Take sigmoid", {"pref_loss": "sigmoid"})),
        ),
        Rule(
            ("pref_loss", "dpo_label_smoothing"),
            lambda c: _chosen(c) and c.get("pref_loss") == "exo_pair" and c.get("dpo_label_smoothing") == 0,
            "With exo_pair the loss takes the logarithm of dpo_label_smoothing, which is 0. Expected a value above 0, "
            "such as 0.001.",
            (Fix("Set to 0.001", {"dpo_label_smoothing": 0.001}),),
        ),
        Rule(
            ("ref_model", "pref_loss"),
            lambda c: _chosen(c) and c.get("pref_loss") in REFERENCE_FREE and names_reference(c),
            lambda c: f"The loss {c.get('pref_loss')} compares with no reference, and one is named.",
            (
                Fix("Leave the reference out", {"ref_model": None, "ref_model_adapters": None,
                                                "ref_model_quantization_bit": None}),
                Fix("Take sigmoid", {"pref_loss": "sigmoid"}),
            ),
        ),
        Rule(
            ("pref_bco_weight", "pref_loss"),
            lambda c: _chosen(c) and c.get("pref_loss") in REFERENCE_FREE and c.get("pref_bco_weight") > 0,
            lambda c: f"BCO compares with a reference, and pref_loss {c.get('pref_loss')} has none.",
            (Fix("Without BCO", {"pref_bco_weight": 0.0}), Fix("Take sigmoid", {"pref_loss": "sigmoid"})),
        ),
        Rule(
            ("discopop_tau", "pref_loss"),
            lambda c: _chosen(c) and c.get("pref_loss") == "discopop" and c.get("discopop_tau") < LEVEL_TAU,
            lambda c: (
                f"With discopop_tau {c.get('discopop_tau'):g}"
                f"{', as in its paper' if c.get('discopop_tau') == PAPER_TAU else ''}, discopop begins uphill: where "
                "the policy equals its reference, it makes the chosen answer less likely. Above "
                f"{LEVEL_TAU:.3f} it does not."
            ),
            (Fix("Set to 0.2", {"discopop_tau": 0.2}), Fix("Take sigmoid", {"pref_loss": "sigmoid"})),
            severity="warning",
        ),
        Rule(
            ("ld_alpha", "pref_loss"),
            lambda c: _chosen(c) and c.get("ld_alpha") is not None and LOSSES[c.get("pref_loss")].averages,
            lambda c: (
                "With ld_alpha the tokens by which one answer is longer weigh less, and pref_loss "
                f"{c.get('pref_loss')} looks at means over tokens: longer answers gain nothing there."
            ),
            (Fix("Leave it out", {"ld_alpha": None}), Fix("Take sigmoid", {"pref_loss": "sigmoid"})),
        ),
        Rule(
            ("per_device_train_batch_size", "pref_loss"),
            lambda c: _one_pair(c) and LOSSES[c.get("pref_loss")].batch_dependent,
            lambda c: (
                f"The loss {c.get('pref_loss')} compares the pairs of a micro-batch with each other, and this one has "
                "one pair."
            ),
            (Fix("Set to 4", {"per_device_train_batch_size": 4}),),
            severity="warning",
        ),
        Rule(
            ("precompute_ref_log_probs", "pref_loss"),
            lambda c: _chosen(c) and bool(c.get("precompute_ref_log_probs")) and c.get("pref_loss") in REFERENCE_FREE,
            lambda c: f"The loss {c.get('pref_loss')} compares with no reference, so no reference model is used.",
            (Fix("Leave it out", {"precompute_ref_log_probs": None}),),
            severity="note",
        ),
    )  # fmt: skip

    def __init__(self, work: Any = None) -> None:
        """Opens the reference, where the loss compares with one; nothing in the model is random from here on."""
        super().__init__(work)
        from llf_core.stages.losses import Terms
        from llf_core.stages.losses.bco import RunningMean
        from llf_core.stages.reference_logprobs import Reference, without_dropout

        config: RunConfig = work.config
        options: Any = config.options("stage.dpo")
        self.formula = LOSSES[options.pref_loss]
        self.terms = Terms(
            beta=config.stage.pref_beta,
            label_smoothing=options.dpo_label_smoothing,
            gamma=options.simpo_gamma,
            discopop_tau=options.discopop_tau,
        )
        self.batch_dependent = self.formula.batch_dependent or options.pref_bco_weight > 0
        self.ftx, self.bco_weight, self.ld_alpha = config.stage.pref_ftx, options.pref_bco_weight, options.ld_alpha
        self.baseline = RunningMean()
        self._kept = self.baseline.state()
        without_dropout(work.model)
        self.reference = Reference(work, self.collator) if self.formula.needs_reference else None

    def collator(self, **options: Any) -> Any:
        """Batches of pairs, in which a question is read once where the model allows it."""
        from llf_core.data.pair_collator import PairCollator

        return PairCollator(**options, fork=self.work.forks)

    def examples(self, examples: Any, *, held_out: bool = False) -> Any:
        """The pairs, with what the reference makes of them where it is asked once."""
        return examples if self.reference is None else self.reference.beside(examples, held_out=held_out)

    @staticmethod
    def count(batch: Mapping[str, Any]) -> Any:
        """Pairs."""
        return batch["ends"].new_tensor(batch["groups"])

    def loss_sum(
        self,
        model: nn.Module,
        batch: dict[str, Any],
        label_smoothing: float = 0.0,  # noqa: ARG002 - that of tokens
        note: Callable[[Tensor, Tensor], object] | None = None,
    ) -> Tensor:
        """Sum over the pairs of a batch, see `Stage.loss_sum`."""
        from llf_core.stages.logprobs import answer_log_probs

        answers = answer_log_probs(model, batch)
        pairs = self._pairs(answers, batch)
        costs: Tensor = self.formula.function(pairs, self.terms)
        if self.bco_weight:
            costs = (costs + self.bco_weight * self._bco(pairs, training=model.training)) / (1 + self.bco_weight)
        if self.ftx:
            costs = costs - self.ftx * answers.sums[0::2] / answers.lengths[0::2]
        self._measure(answers, pairs)
        if note is not None:
            note(costs.detach(), answers.lengths.view(-1, 2).sum(1))
        return costs.sum()

    def _pairs(self, answers: Answers, batch: dict[str, Any]) -> Pairs:
        from llf_core.stages.losses import Pairs
        from llf_core.stages.losses.length import desensitized_sums

        policy = answers.sums
        if self.ld_alpha is not None:
            policy = desensitized_sums(answers.tokens, answers.owners, batch["groups"], self.ld_alpha)
        better, worse = policy.view(-1, 2).unbind(1)
        reference: tuple[Tensor | None, Tensor | None] = (None, None)
        if self.reference is not None:
            reference = tuple(self.reference.log_probs(batch).to(policy).view(-1, 2).unbind(1))  # type: ignore[assignment]
        lengths = answers.lengths.view(-1, 2)
        return Pairs(better, worse, *reference, lengths[:, 0], lengths[:, 1])

    def _bco(self, pairs: Pairs, *, training: bool) -> Tensor:
        import torch

        from llf_core.stages.base.all_reduce import sum_over_ranks
        from llf_core.stages.losses.bco import bco

        if training:
            rewards = self.terms.beta * (pairs.chosen_ratio + pairs.rejected_ratio).detach()
            total, count = sum_over_ranks(torch.stack([rewards.sum(), rewards.new_tensor(2.0 * len(rewards))]))
            self.baseline.add(total, count)
        return bco(pairs, self.terms, self.baseline.mean)

    def undo(self) -> None:
        """See `Stage.undo`; the running mean of rewards goes back too."""
        super().undo()
        self.baseline.load(self._kept)

    def keep(self) -> None:
        """See `Stage.keep`."""
        super().keep()
        self._kept = self.baseline.state()

    def _measure(self, answers: Answers, pairs: Pairs) -> None:
        count = len(answers.lengths) // 2
        better, worse = answers.sums.detach().view(-1, 2).unbind(1)
        means = answers.sums.detach() / answers.lengths
        if pairs.reference_chosen is None or pairs.reference_rejected is None:
            # As SimPO and ORPO have it: means over tokens.
            better, worse = means.view(-1, 2).unbind(1)
            rewards = better, worse
        else:
            rewards = better - pairs.reference_chosen, worse - pairs.reference_rejected
        chosen, rejected = (self.terms.beta * one for one in rewards)
        add = self.measures.add
        add("rewards/chosen", chosen.sum(), count)
        add("rewards/rejected", rejected.sum(), count)
        add("rewards/margins", (chosen - rejected).sum(), count)
        add("rewards/accuracies", (chosen > rejected).sum(), count)
        add("logps/chosen", better.sum(), count)
        add("logps/rejected", worse.sum(), count)
        odds = self.formula is LOSSES["orpo"]
        if odds or self.ftx:
            add("sft_loss", -means[0::2].sum(), count)
        if odds:
            from llf_core.stages.losses.orpo import odds_ratio_loss

            add("odds_ratio_loss", odds_ratio_loss(pairs).detach().sum(), count)

    def state(self) -> dict[str, Any]:
        """The running mean of rewards."""
        return {"baseline": self.baseline.state()} if self.bco_weight else {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See `state`."""
        if "baseline" in state:
            self.baseline.load(state["baseline"])
            self._kept = self.baseline.state()

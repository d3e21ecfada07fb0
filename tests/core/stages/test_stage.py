"""A stage says who computes its loss: itself, or the trainer of another library."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from llf_core.config.declaration import PluginError, StageDeclaration
from llf_core.stages.base import stage


class Neither(stage.Stage):
    """Has neither a loss nor a trainer."""


class Summed(stage.LossStage):
    """Has a loss."""

    def loss_sum(self, model, batch, label_smoothing=0.0, record_losses=None):
        """Not called here."""


@pytest.fixture
def select(monkeypatch):
    def declare(name: str) -> None:
        declaration = StageDeclaration(name="mine", label="mine", implementation=f"{__name__}:{name}")
        monkeypatch.setattr(stage, "stage_of", lambda _config: declaration)

    return declare


def test_a_stage_that_subclasses_stage_itself_is_refused_with_what_it_must_subclass(select):
    select("Neither")
    with pytest.raises(PluginError, match=r"The stage mine names .*:Neither.* subclass of LossStage or TrainerStage"):
        stage.make_stage(None, SimpleNamespace())


def test_a_stage_with_a_loss_is_made_with_its_context(select):
    select("Summed")
    context = SimpleNamespace()
    assert stage.make_stage(None, context).context is context


@pytest.mark.parametrize("base", [stage.LossStage, stage.TrainerStage])
def test_a_stage_without_its_loss_or_trainer_cannot_be_made(base):
    with pytest.raises(TypeError, match="loss_sum" if base is stage.LossStage else "trainer"):
        type("Empty", (base,), {})()

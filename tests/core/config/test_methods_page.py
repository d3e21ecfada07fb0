"""The page of methods, and what the form says of those that cannot be chosen."""

import re
from pathlib import Path

from llf_core.config import validate
from llf_core.config.choice_reasons import choice_reasons, explained_choices
from llf_core.config.declaration import MethodDeclaration
from llf_core.config.reference_docs import method_page
from llf_core.config.registry import declared

PAGE = Path(__file__).parents[3] / "docs" / "methods.md"


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == method_page(), "run: python -m llf_core.config.reference_docs"


def test_every_method_has_a_line_and_the_paper_it_is_from():
    for name, one in declared(MethodDeclaration).items():
        assert re.fullmatch(r"[A-Z].+\.", one.summary), name
        assert len(one.summary) <= 110, name
        assert one.paper.startswith("arXiv ") or name in {"full", "freeze", "peft"}


def reasons(key, **keys):
    return choice_reasons(validate({"dataset": "llf_demo"} | keys).config, key)


def test_what_cannot_be_chosen_has_the_reason():
    assert reasons("finetuning_type") == {}
    assert "cannot be trained" in reasons("finetuning_type", quantization_bit=4)["full"]
    assert set(reasons("finetuning_type", quantization_bit=4)) == {"full", "freeze"}
    assert set(reasons("finetuning_type", stage="dpo")) == {"prompt", "prefix"}
    assert "adalora" in reasons("finetuning_type", optim="adalomo")
    assert reasons("stage") == {}


def test_optimizers_of_whole_models_cannot_be_chosen_for_an_adapter():
    """They have a switch, `use_galore`, which is no choice that they would still need."""
    whole = {"galore", "apollo", "badam"}
    assert whole <= set(reasons("optim"))
    assert "trains an adapter" in reasons("optim")["galore"]
    assert whole.isdisjoint(reasons("optim", finetuning_type="full"))


def test_a_method_that_needs_a_choice_of_its_own_can_be_chosen():
    assert "peft" in explained_choices("finetuning_type")
    assert "peft" not in reasons("finetuning_type", quantization_bit=4)

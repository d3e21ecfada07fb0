"""The chat template that the form sets when a model is chosen."""

from __future__ import annotations

from llf_core.config import Fix, Problem
from llf_core.data.template_facts import own_template_of
from llf_core.model_catalog import find_model


def template_of_model(name: str) -> tuple[str | None, Problem | None]:
    """The template of a model of the catalog (None for the tokenizer's own), with a note whose button undoes it.

    None is set where LLaMA-Factory's template is known to differ from the model's own; the button then sets it.
    """
    model = find_model(name)
    if model is None:
        return None, None
    own = own_template_of(model.id) if model.template else None
    template = model.template or None if own is None else None
    fixes: tuple[Fix, ...] = ()
    if own is not None:
        said = (
            f"The tokenizer's own template is used ({own.family}): `{model.template}`, LLaMA-Factory's template of "
            f"{model.id}, writes conversations otherwise."
        )
        fixes = (Fix(f"Use {model.template}", {"template": model.template}),)
    elif template is not None:
        said = f"The template of {model.id}. It was set when the model was chosen."
        fixes = (Fix("Use the tokenizer's own", {"template": None}),)
    elif model.tuning == "chat":
        said = f"No named template is known for {model.id}: its tokenizer's own is used."
    else:
        return None, None
    return template, Problem("violation", "template", template, said, fixes, "note", keys=("template",))

"""`python -m llf_core.config.reference_docs`: writes `docs/config.md`, the reference of every key."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.field_specs import SECTIONS, fields
from llf_core.config.known_keys import known
from llf_core.config.registry import all_declared

if TYPE_CHECKING:
    from llf_core.config.field_specs import FieldSpec

START = """# Every key of a config

A config is a flat YAML or JSON file, a dict in a cell, or the form. `llf validate FILE` checks it:
keys, values, their combinations, and whether the models, data sets and modules that it names exist.
`python -m llf_core.config.reference_docs` generates this page from the code.

A key that Hugging Face or LLaMA-Factory has, has the same name, values and meaning here.
Relative paths are relative to the folder of the file. `null` leaves a key unset.
"""


def reference() -> str:
    """Write the reference of all keys as Markdown."""
    parts = [START]
    for name, section in SECTIONS.items():
        own = [spec for spec in fields() if spec.section == name and spec.plugin is None]
        parts.append(f"## {name.capitalize()}\n\n{section.__doc__}\n\n{_table(own)}")
        for owner, plugin in all_declared().items():
            brought = [spec for spec in fields() if spec.section == name and spec.owner == owner]
            if brought:
                selects = f"{plugin.key}: {plugin.name}" if plugin.key else plugin.selector
                parts.append(f"### With `{selects}`\n\n{_table(brought)}")
    return "\n".join([*parts, _elsewhere()])


def _table(specs: list[FieldSpec]) -> str:
    rows = ["| key | default | expected | what it does | named by |", "|---|---|---|---|---|"]
    for spec in specs:
        unit = f", in {spec.unit}" if spec.unit else ""
        cells = (f"`{spec.key}`", f"`{_value(spec.default)}`", f"{spec.expected}{unit}", spec.help, spec.source)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _elsewhere() -> str:
    listed = known()
    features: dict[str, list[str]] = {}
    for key, feature in listed.features.items():
        features.setdefault(feature, []).append(f"`{key}`")
    for key, values in listed.values.items():
        for value, feature in values.items():
            features.setdefault(feature, []).append(f"`{key}: {value}`")
    lines = [
        "## Known and not built yet",
        "",
        "Such a key is an error that names the feature, unless its value switches the feature off.",
        "",
    ]
    lines += [f"- {feature}: {', '.join(keys)}" for feature, keys in features.items()]
    lines += ["", "## Not needed", "", "These keys are accepted and have no effect. What happens instead:", ""]
    lines += [f"- `{key}`: {instead}" for key, instead in {**listed.not_needed, **listed.replaced}.items()]
    lines += ["", "## Translated", "", "Older and alternative names:", ""]
    lines += [f"- `{old}` is read as `{new}`" for old, new in listed.translated.items()]
    lines += [
        "",
        "## Secrets",
        "",
        "These keys are refused, because a config is stored with its run. Set the environment variable instead:",
        "",
    ]
    lines += [f"- `{key}`: `{variable}`" for key, variable in listed.secrets.items()]
    return "\n".join(lines) + "\n"


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def main(argv: list[str] | None = None) -> None:
    """Write the reference to the file that is the only argument, by default `docs/config.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=Path("docs/config.md"), help="file to write")
    parser.parse_args(argv).file.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    main()

"""`llf parameters`: shows which parameters of a model a config trains, and which servers load the result."""

from typing import TYPE_CHECKING

from llf_core.cli.checked_config import load_config
from llf_core.cli.parameters import ConfigFile, Json, Overrides
from llf_core.cli.terminal import err, out, print_json

if TYPE_CHECKING:
    from llf_core.training.parameter_map import ModuleRow


def parameters(config: ConfigFile, overrides: Overrides = None, as_json: Json = False) -> None:
    """Show which modules and layers a config trains, how many parameters, and which servers load the result.

    Check with it what lora_target or freeze_trainable_layers mean for a model. No weights are loaded, and no data set
    is needed.
    """
    from llf_core.config.adapter_servers import server_lines, servers_of_config
    from llf_core.runs import home
    from llf_core.runs.parameter_grid import share_sentence

    checked = load_config(config, overrides, data=False)
    with err.status("Reading the model's architecture…"):
        from llf_core.training.parameter_map import map_of_config

        found = map_of_config(checked)
    known = servers_of_config(checked, home())
    servers = None if known is None else known.json()
    if as_json:
        print_json(found.json() | {"servers": servers})
        return
    from rich.table import Table

    table = Table("module", "layers", "parameters", "trained", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    several = len({row.stack for row in found.rows if row.stack}) > 1
    for row in found.rows:
        module = f"{row.stack}: {row.module}" if several and row.stack else row.module
        table.add_row(module, _layers(row), f"{row.parameters:,}", f"{row.trained:,}" if row.trained else "")
    out.print(table)
    out.print(share_sentence(found.trained, found.parameters))
    for line in server_lines(servers):
        out.print(line, markup=False, highlight=False)


def _layers(row: "ModuleRow") -> str:
    """Its states and their layers: `adapter 0-29 (quantized)`."""
    from llf_core.training.parameter_map import layer_ranges

    told = []
    for state, layers in row.states.items():
        runs = [
            str(first) if first == last else f"{first}-{last}" for first, last in layer_ranges(layers) if first >= 0
        ]
        told.append(f"{state} {', '.join(runs)}".strip())
    return "; ".join(told) + (" (quantized)" if row.quantized and "quantized" not in row.states else "")

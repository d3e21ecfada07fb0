from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.launch.start import to_table, write_rows
from llf_core.runs import home
from llf_core.runs.uploads import UPLOADS

if TYPE_CHECKING:
    import pyarrow as pa

VARIABLE = "rows"


@dataclass(frozen=True)
class CellRows:
    """Rows from a cell, stored as a Parquet file, so that every check and view reads them like any data set."""

    table: pa.Table
    path: str
    variable: str

    @classmethod
    def save(cls, rows: object) -> CellRows:
        """Write rows in any form that `llf.train` accepts below `LLF_HOME`; equal rows go to the same file."""
        table = to_table(rows)
        path, _ = write_rows(table, home() / UPLOADS)
        return cls(table, str(path), _variable(rows))

    def ensure_saved(self) -> None:
        """Write the file again if `llf runs clean` removed it while the form was open."""
        if not Path(self.path).exists():
            write_rows(self.table, Path(self.path).parent)

    @property
    def label(self) -> str:
        """Label of the data set in the form in place of the file name: `40 rows from this cell`."""
        count = self.table.num_rows
        return f"{count:,} {'row' if count == 1 else 'rows'} from this cell"

    def to_display(self, text: str) -> str:
        """Replace the file name in a value of `dataset` with the label."""
        return text.replace(self.path, self.label)

    def from_display(self, text: str) -> str:
        """Replace the label in a typed value of `dataset` with the file name."""
        return text.replace(self.label, self.path)

    def matches(self, dataset: object) -> bool:
        """Whether a value of `dataset` refers to these rows only, in any form that a config accepts."""
        return dataset in (self.path, (self.path,), [self.path])


def _variable(rows: object) -> str:
    """Name of the variable that holds an object in the notebook; `rows` if none."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    names = {} if shell is None else shell.user_ns
    return next((name for name, value in names.items() if value is rows and not name.startswith("_")), VARIABLE)

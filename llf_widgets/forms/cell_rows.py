"""Rows that a cell hands to the form, kept as a file, so that everything that takes a data set takes them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llf_core.launch.cell_rows import to_table, write_rows
from llf_core.runs import home
from llf_core.runs.uploads import UPLOADS

if TYPE_CHECKING:
    import pyarrow as pa

VARIABLE = "rows"


@dataclass(frozen=True)
class CellRows:
    """Rows of a cell.

    Attributes:
        table: the rows.
        path: the Parquet file that holds them; its name tells their fingerprint.
        variable: how the cell calls them.
    """

    table: pa.Table
    path: str
    variable: str

    @classmethod
    def keep(cls, rows: Any) -> CellRows:
        """Writes rows below `LLF_HOME`; the same rows are written to the same file.

        Args:
            rows: what `llf.train` takes as `dataset`: a list of dicts, a DataFrame, a `datasets.Dataset`.

        Raises:
            RowsError: they are no table.
            OSError: the file can't be written.
        """
        table = to_table(rows)
        path, _ = write_rows(table, home() / UPLOADS)
        return cls(table, str(path), _variable(rows))

    def hold(self) -> None:
        """Has the file there, where it was removed while a form was open for long."""
        if not Path(self.path).exists():
            write_rows(self.table, Path(self.path).parent)

    @property
    def label(self) -> str:
        """What the form shows as the data set: `40 rows from this cell`."""
        count = self.table.num_rows
        return f"{count:,} {'row' if count == 1 else 'rows'} from this cell"

    def shown(self, text: str) -> str:
        """A value of `dataset` with the words for these rows in place of their file."""
        return text.replace(self.path, self.label)

    def meant(self, text: str) -> str:
        """The value of `dataset` that a text with these words means."""
        return text.replace(self.label, self.path)

    def are(self, dataset: Any) -> bool:
        """Whether a value of `dataset` names these rows and nothing else."""
        return dataset in (self.path, (self.path,), [self.path])


def _variable(rows: Any) -> str:
    """The name that a notebook has for an object; `rows` where it has none."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    names = {} if shell is None else shell.user_ns
    return next((name for name, value in names.items() if value is rows and not name.startswith("_")), VARIABLE)

"""Base class and list of the formats of exports."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

from llf_core.config.did_you_mean import did_you_mean
from llf_core.export.request import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llf_core.export.receipt import ReceiptCheck
    from llf_core.export.request import ExportRequest
    from llf_core.export.source import ExportSource

FORMATS = {
    "adapter": "llf_core.export.formats.adapter:AdapterFormat",
    "merged": "llf_core.export.formats.merged:MergedFormat",
    "gguf-adapter": "llf_core.export.formats.gguf:GgufAdapterFormat",
    "gguf": "llf_core.export.formats.gguf:GgufFormat",
    "int8": "llf_core.export.formats.quantized:Int8Format",
    "int4": "llf_core.export.formats.quantized:Int4Format",
    "gptq": "llf_core.export.formats.quantized:GptqFormat",
    "awq": "llf_core.export.formats.quantized:AwqFormat",
}


class ExportFormat(ABC):
    """A format of exports. Its module imports no torch; its methods run in a process of their own, except `check`.

    Attributes:
        name: name in a config and on the command line.
        readers: packages that load it by the lines of its card; empty if other programs load it.
        keeps_dtype: whether the files choose the dtype in which they are computed.
    """

    name: ClassVar[str]
    label: ClassVar[str]
    help: ClassVar[str]
    reward_models: ClassVar[bool] = False
    readers: ClassVar[tuple[str, ...]] = ()
    keeps_dtype: ClassVar[bool] = False

    @abstractmethod
    def check(self, request: ExportRequest) -> None:
        """Check a request before anything is loaded.

        Raises:
            ExportError: an option does not fit the format or the target, or a package or program is not installed.
        """

    @abstractmethod
    def write(
        self, source: ExportSource, folder: Path, request: ExportRequest, progress: Callable[[str, int, int], object]
    ) -> list[Path]:
        """Write the files of the model in this format, after `check` and before `verify`.

        Args:
            source: the live model, whose `reference` was measured before. It may be changed in place.
            folder: an empty folder beside the destination, so that an export that fails leaves no half of one there.
            progress: called with a description of the work, the number of steps done and their total.
        """

    @abstractmethod
    def verify(
        self, source: ExportSource, folder: Path, request: ExportRequest, progress: Callable[[str, int, int], object]
    ) -> list[ReceiptCheck]:
        """Load what `write` wrote by another program, and compare it with the live model.

        A fault that the writer makes would be made again where it reads its own files.
        """

    def table(self, checks: Sequence[ReceiptCheck]) -> list[dict[str, object]]:  # noqa: ARG002 - of quantizing formats
        """Rows of the receipt's table of quantizations, see `Receipt.table`; none by default.

        Args:
            checks: what `verify` returned, which is called before.
        """
        return []


def find_format(name: str) -> ExportFormat:
    """The format of a name.

    Raises:
        ExportError: there is no such format.
    """
    if name not in FORMATS:
        meant = did_you_mean(str(name), FORMATS)
        raise ExportError(f"`format` is {name!r}.{meant} Expected one of {', '.join(FORMATS)}.")
    module, _, kind = FORMATS[name].partition(":")
    found: ExportFormat = getattr(importlib.import_module(module), kind)()
    return found

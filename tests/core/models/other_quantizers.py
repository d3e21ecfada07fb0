"""Settings of the quantizers beside bitsandbytes, for tests: those that are not installed are skipped."""

import pytest

from llf_core.config.quantizers import QUANTIZERS


def settings(method, bits, kind=None, *, long=False):
    """Settings of a quantizer as a parameter of a test, skipped where its package is missing."""
    keys = {"quantization_method": method, "quantization_bit": bits}
    missing = QUANTIZERS[method].missing_packages()
    marks = [pytest.mark.skipif(bool(missing), reason=f"{missing} not installed")]
    name = f"{method}-{bits}{'' if kind is None else f'-{kind}'}"
    return pytest.param(
        keys if kind is None else keys | {"quantization_type": kind},
        marks=[*marks, *([pytest.mark.long] if long else [])],
        id=name,
    )


OTHER_QUANTIZERS = [
    settings("hqq", 4),
    settings("torchao", 8),
    *(settings("hqq", bits, long=True) for bits in (1, 2, 3, 5, 6, 8)),
    settings("torchao", 8, "float8", long=True),
    settings("quanto", 8, long=True),
    settings("quanto", 4, long=True),
    settings("quanto", 2, long=True),
    settings("quanto", 8, "float8", long=True),
]

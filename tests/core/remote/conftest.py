"""The host `box`, and the settings of a tiny run."""

from tests.attempts import data_file, settings  # noqa: F401 - fixtures
from tests.ssh_box import box, until  # noqa: F401 - fixtures

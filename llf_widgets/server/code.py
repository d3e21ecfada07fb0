from __future__ import annotations

from typing import TYPE_CHECKING

from jupyter_server.auth.decorator import authorized
from tornado.web import HTTPError, authenticated

from llf_core.runs.code_files import TooMuchCodeError
from llf_core.runs.foreign_code import code_as_json, code_to_allow
from llf_widgets.server.handler import RunsAPIHandler, os_error_text

if TYPE_CHECKING:
    from llf_core.runs import RunFolder


class CodeHandler(RunsAPIHandler):
    """Code that a user must allow before a run is trained again."""

    @authenticated
    @authorized
    async def get(self, run_id: str) -> None:
        """Return `{"sha256", "code"}`; empty for runs that this user created or allowed."""
        folder = await self.find_run(run_id)
        try:
            found = await self.run_in_thread(read_code, folder)
        except FileNotFoundError:  # somebody deletes it at this moment
            raise self.run_not_found(run_id) from None
        except TooMuchCodeError as error:
            raise HTTPError(409, "%s", str(error).replace(str(folder.path), folder.id)) from None
        except OSError as error:
            raise HTTPError(409, "%s", f"Some files of the run cannot be read: {os_error_text(error)}") from None
        self.finish(found)


def read_code(folder: RunFolder) -> dict[str, object]:
    """The code of a run with its hash, see `code_as_json`."""
    return code_as_json(code_to_allow(folder))

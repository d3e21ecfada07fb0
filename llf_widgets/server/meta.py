from __future__ import annotations

from typing import Any

from jupyter_server.auth.decorator import authorized
from tornado.web import HTTPError, authenticated

from llf_core.runs import update_meta
from llf_core.runs.meta import StaleError
from llf_core.untrusted import NotPlainError, json_value
from llf_widgets.server.handler import RunsAPIHandler, os_error_text

MAX_BODY_BYTES = 80_000
MAX_LENGTHS = {"name": 200, "note": 20_000}
MAX_TAGS, MAX_TAG_LENGTH = 20, 60


class MetaHandler(RunsAPIHandler):
    """Name, tags and note of a run, the only data of a run that users edit."""

    @authenticated
    @authorized
    async def patch(self, run_id: str) -> None:
        """Accept `{"revision", "name"?, "tags"?, "note"?}`, return the new content.

        The revision is the one that the user saw, so that two pages do not overwrite each other's changes.
        """
        if len(self.request.body) > MAX_BODY_BYTES:
            raise HTTPError(413, f"The change has {len(self.request.body)} bytes. Expected at most {MAX_BODY_BYTES}.")
        revision, changes = parse_change(self.request.body)
        folder = await self.find_run(run_id)
        try:
            self.finish(await self.run_in_thread(update_meta, folder, seen=revision, **changes))
        except StaleError as error:
            raise HTTPError(409, str(error)) from None
        except FileNotFoundError:  # somebody deletes it at this moment
            raise self.run_not_found(run_id) from None
        except TimeoutError:
            raise HTTPError(409, "The files of the run are locked by another process. Try again.") from None
        except OSError as error:  # another user's, behind a link, on a full disk
            raise HTTPError(409, "%s", f"The change could not be written: {os_error_text(error)}") from None


def parse_change(body: bytes) -> tuple[int, dict[str, Any]]:
    """Parse revision and changes of a request's body, within size limits."""
    try:
        sent = json_value(body)
    except NotPlainError:
        raise HTTPError(
            400, 'The body is not JSON. Expected an object, as {"revision": 1, "name": "a name"}.'
        ) from None
    if not isinstance(sent, dict):
        raise HTTPError(400, 'Expected a JSON object, as {"revision": 1, "name": "a name"}.')
    revision = sent.pop("revision", None)
    if isinstance(revision, bool) or not isinstance(revision, int):
        raise HTTPError(400, "revision is not an integer. Expected the revision that was shown.")
    unknown = sorted(set(sent) - {"name", "tags", "note"})
    if unknown or not sent:
        wrong = f"Unknown field {unknown[0][:40]!r}." if unknown else "No change was given."
        raise HTTPError(400, f"{wrong} Expected name, tags or note.")
    for field, max_length in MAX_LENGTHS.items():
        text = sent.get(field, "x")
        if not isinstance(text, str) or len(text) > max_length:
            raise HTTPError(400, f"{field} is not a string of at most {max_length:,} characters.")
    if not sent.get("name", "x").strip():
        raise HTTPError(400, f"name is blank. Expected 1 to {MAX_LENGTHS['name']:,} characters.")
    tags = sent.get("tags", [])
    valid = isinstance(tags, list) and all(isinstance(tag, str) and 0 < len(tag) <= MAX_TAG_LENGTH for tag in tags)
    if not valid or len(tags) > MAX_TAGS:
        raise HTTPError(400, f"tags is not a list of at most {MAX_TAGS} strings of 1 to {MAX_TAG_LENGTH} characters.")
    return revision, sent

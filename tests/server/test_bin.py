"""Deleting, looking at the bin, restoring, removing for good."""

from __future__ import annotations

import asyncio
import os

import pytest

from llf_core.runs import clean
from tests.server.test_ids import BAD


@pytest.fixture
def deleted(ask, make_run):
    """Makes a run, deletes it and returns its folder's old place."""

    async def make(name, **status):
        folder = make_run(name, **{"state": "finished"} | status)
        assert (await ask("runs", folder.id, "bin", body={}))[0] == 200
        return folder

    return make


async def test_a_run_goes_to_the_bin_and_comes_back(ask, make_run):
    folder = make_run("gone", state="finished")
    assert await ask("runs", folder.id, "bin", body={}) == (200, {"id": folder.id})
    assert (await ask("runs"))[1]["total"] == 0
    assert (await ask("runs", folder.id, "bin", body={}))[0] == 404
    assert await ask("bin", folder.id, "restore", body={}) == (200, {"id": folder.id})
    assert (await ask("runs"))[1]["total"] == 1
    code, answer = await ask("bin", folder.id, "restore", body={})
    assert (code, answer["message"]) == (404, "The bin does not contain this run.")
    assert (await ask("bin", "UPPER", "restore", body={}))[0] == 404
    assert (await ask("bin", "UPPER", method="DELETE"))[0] == 404


async def test_a_run_that_goes_stays(ask, make_run, live_process):
    folder = make_run("live", state="running", **live_process)
    code, answer = await ask("runs", folder.id, "bin", body={})
    assert (code, "Stop or kill it" in answer["message"]) == (409, True)


async def test_a_run_of_the_same_id_is_not_replaced(ask, make_run, llf_home):
    folder = make_run("twice", state="finished")
    await ask("runs", folder.id, "bin", body={})
    folder.path.mkdir()
    code, answer = await ask("bin", folder.id, "restore", body={})
    assert (code, answer["message"].startswith("A run with this id already exists")) == (409, True)


async def test_a_bin_that_is_no_folder_is_a_sentence(ask, llf_home):
    llf_home.mkdir(exist_ok=True)
    (llf_home / "bin").write_text("")
    assert await ask("bin") == (409, {"message": "The bin cannot be listed: Not a directory."})


async def test_the_bin_is_listed_a_page_at_a_time(ask, deleted, llf_home):
    first, second = await deleted("first"), await deleted("second", state="failed", reason="Out of memory.")
    for folder, when in ((first, 1000), (second, 2000)):
        os.utime(llf_home / "bin" / folder.id, (when, when))
    code, answer = await ask("bin")
    assert (code, answer["total"]) == (200, 2)
    assert [(one["id"], one["name"], one["deleted"]) for one in answer["runs"]] == [
        (second.id, "second", 2000.0),
        (first.id, "first", 1000.0),
    ]
    assert (answer["runs"][0]["reason"], answer["runs"][0]["state"]) == ("Out of memory.", "failed")
    assert all(one["bytes"] > 0 for one in answer["runs"])
    assert [one["id"] for one in (await ask("bin", params={"offset": "1", "limit": "1"}))[1]["runs"]] == [first.id]
    assert (await ask("bin", params={"limit": "0"}))[0] == 400


async def test_an_empty_bin(ask):
    assert await ask("bin") == (200, {"total": 0, "runs": []})


async def test_a_run_is_removed_for_good(ask, deleted, llf_home):
    folder, stays = await deleted("gone"), await deleted("stays")
    assert await ask("bin", folder.id, method="DELETE") == (200, {"id": folder.id})
    assert [one["id"] for one in (await ask("bin"))[1]["runs"]] == [stays.id]
    assert [entry.name for entry in (llf_home / "bin").iterdir() if entry.is_dir()] == [stays.id]
    said = {"message": "The bin does not contain this run."}
    assert await ask("bin", folder.id, method="DELETE") == (404, said)
    assert await ask("bin", folder.id, "restore", body={}) == (404, said)


async def test_a_run_that_is_not_in_the_bin_is_not_removed(ask, make_run):
    folder = make_run("there", state="finished")
    assert (await ask("bin", folder.id, method="DELETE"))[0] == 404
    assert folder.status.is_file()


@pytest.mark.parametrize("bad", BAD)
async def test_nothing_outside_the_bin_is_removed(http_server_client, jp_auth_header, jp_base_url, make_run, bad):
    folder = make_run("there", state="finished")
    for verb, rest in (("DELETE", ""), ("POST", "/restore")):
        response = await http_server_client.fetch(
            f"{jp_base_url}llf/api/bin/{bad}{rest}",
            method=verb, headers=jp_auth_header, raise_error=False, allow_nonstandard_methods=True,
        )  # fmt: skip
        assert response.code in {404, 405}, response.body
    assert folder.status.is_file()


async def test_a_link_in_the_bin_leads_nowhere(ask, deleted, llf_home, tmp_path):
    folder = await deleted("linked")
    (llf_home / "bin" / folder.id).rename(tmp_path / "elsewhere")
    (llf_home / "bin" / folder.id).symlink_to(tmp_path / "elsewhere")
    assert (await ask("bin"))[1]["total"] == 0
    assert (await ask("bin", folder.id, method="DELETE"))[0] == 404
    assert (await ask("bin", folder.id, "restore", body={}))[0] == 404
    assert (tmp_path / "elsewhere" / "status.json").is_file()


async def test_without_the_cookie_of_the_page_nothing_is_changed(
    http_server_client, jp_base_url, jp_serverapp, deleted, llf_home
):
    """Another site's form is sent with the login cookie, but knows no `_xsrf`."""
    folder = await deleted("kept")
    login = await http_server_client.fetch(f"{jp_base_url}api/status?token={jp_serverapp.identity_provider.token}")
    cookies = "; ".join(one.split(";")[0] for one in login.headers.get_list("Set-Cookie") if "_xsrf" not in one)
    url = f"{jp_base_url}llf/api/bin"
    assert (await http_server_client.fetch(url, headers={"Cookie": cookies})).code == 200  # logged in
    for verb, rest in (("DELETE", ""), ("POST", "/restore")):
        response = await http_server_client.fetch(
            f"{jp_base_url}llf/api/bin/{folder.id}{rest}",
            method=verb, headers={"Cookie": cookies}, raise_error=False, allow_nonstandard_methods=True,
        )  # fmt: skip
        assert response.code == 403
    assert (llf_home / "bin" / folder.id).is_dir()


async def test_many_that_delete_restore_and_remove_at_once(ask, deleted, llf_home):
    """Each answer is a sentence, and the run is whole in one place or gone."""
    for number in range(8):
        folder = await deleted(f"run {number}")
        answers = await asyncio.gather(
            *[ask("bin", folder.id, "restore", body={}) for _ in range(3)],
            *[ask("runs", folder.id, "bin", body={}) for _ in range(3)],
            *[ask("bin", folder.id, method="DELETE") for _ in range(2)],
        )
        assert {code for code, _ in answers} <= {200, 404, 409}, answers
        places = [place / folder.id for place in (llf_home / "runs", llf_home / "bin")]
        there = [place for place in places if place.is_dir()]
        removed = any(code == 200 for code, _ in answers[-2:])
        assert len(there) == (0 if removed else 1)
        assert all((place / "status.json").is_file() for place in there)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            PermissionError(13, "Permission denied", "/home/ada/.llf"),
            "Some files could not be moved: Permission denied.",
        ),
        (
            OSError(30, "Read-only file system", "/home/ada/.llf"),
            "Some files could not be moved: Read-only file system.",
        ),
        (TimeoutError("/ada/.lock is locked"), "The bin is locked by another process. Try again."),
    ],
)
async def test_what_the_system_refuses_is_a_sentence_without_paths(ask, deleted, make_run, monkeypatch, error, said):
    binned, there = await deleted("binned"), make_run("there", state="finished")

    def refuse(*_args, **_options):
        raise error

    monkeypatch.setattr("llf_core.runs.bin.locked", refuse)
    for parts, options in (
        (("bin", binned.id), {"method": "DELETE"}),
        (("bin", binned.id, "restore"), {"body": {}}),
        (("runs", there.id, "bin"), {"body": {}}),
    ):
        code, answer = await ask(*parts, **options)
        assert (code, answer["message"].startswith(said)) == (409, True), answer
        assert "ada" not in answer["message"]


async def test_a_run_that_is_not_removed_whole_is_not_restored_as_a_half(ask, deleted, monkeypatch):
    folder = await deleted("stuck")

    def refuse(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr("shutil.rmtree", refuse)
        code, answer = await ask("bin", folder.id, method="DELETE")
    assert (code, answer["message"]) == (
        409, "Some files could not be moved: Permission denied. Run `llf runs clean` to try again.",
    )  # fmt: skip
    assert (await ask("bin"))[1]["total"] == 0
    assert (await ask("bin", folder.id, "restore", body={}))[0] == 404
    assert clean().bytes > 0


async def test_a_wrong_token_opens_nothing(http_server_client, jp_base_url, deleted, llf_home):
    folder = await deleted("kept")
    for verb, route in (("GET", "bin"), ("DELETE", f"bin/{folder.id}"), ("POST", f"bin/{folder.id}/restore")):
        response = await http_server_client.fetch(
            f"{jp_base_url}llf/api/{route}",
            method=verb, headers={"Authorization": "token wrong"}, raise_error=False, allow_nonstandard_methods=True,
        )  # fmt: skip
        assert response.code == 403
        assert folder.id.encode() not in response.body
    assert (llf_home / "bin" / folder.id).is_dir()


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b"null"])
async def test_what_a_body_says_does_not_matter(jp_fetch, deleted, body):
    folder = await deleted("any")
    response = await jp_fetch("llf", "api", "bin", folder.id, "restore", method="POST", body=body)
    assert response.code == 200

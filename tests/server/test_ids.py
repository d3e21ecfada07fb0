"""Routes take ids: nothing outside `LLF_HOME/runs` can be named."""

from __future__ import annotations

import pytest

BAD = [
    "..",
    "%2e%2e",
    "..%2f..%2fetc",
    "%2fetc%2fpasswd",
    "a..b",
    ".hidden",
    "Upper",
    "a%00b",
    "a%0a",
    "a" * 129,
    "run%20",
    "r%C3%BCn",
]


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("rest", ["", "/output.zip", "/control"])
async def test_what_is_no_id_is_not_found(jp_serverapp, http_server_client, jp_auth_header, jp_base_url, bad, rest):
    options = {"method": "POST", "body": '{"type": "stop"}'} if rest == "/control" else {}
    url = f"{jp_base_url}llf/api/runs/{bad}{rest}"
    response = await http_server_client.fetch(url, headers=jp_auth_header, raise_error=False, **options)
    assert response.code in {404, 405}, response.body
    assert b"Traceback" not in response.body


async def test_a_file_is_no_run(ask, llf_home):
    (llf_home / "runs").mkdir(parents=True)
    (llf_home / "runs" / "note").write_text("secret")
    assert await ask("runs", "note") == (404, {"message": "No run note in the LLF_HOME of the server."})


@pytest.mark.parametrize("inside", [False, True])
async def test_a_linked_folder_is_no_run(ask, make_run, tmp_path, inside):
    folder = make_run(state="finished")
    target = folder.path
    if not inside:
        target = tmp_path / "elsewhere"
        folder.path.rename(target)
    link = folder.path.parent / "linked"
    link.symlink_to(target)
    assert (await ask("runs", "linked"))[0] == 404
    assert (await ask("runs", "linked", "output.zip"))[0] == 404
    assert (await ask("runs", "linked", "control", body={"type": "stop"}))[0] == 404
    assert not list((target / "control").iterdir())


async def test_runs_below_a_linked_home_are_found(ask, make_run, llf_home, tmp_path):
    folder = make_run(state="finished")
    llf_home.rename(tmp_path / "disk")
    llf_home.symlink_to(tmp_path / "disk")
    assert (await ask("runs", folder.id))[0] == 200


async def test_an_unexpected_error_tells_no_paths(ask, make_run, monkeypatch, llf_home):
    from llf_core.runs.run_index import RunIndex

    def fall(*_, **_options):
        raise RuntimeError(f"cannot read {llf_home}")

    monkeypatch.setattr(RunIndex, "cached_page", fall)
    code, answer = await ask("runs")
    assert code == 500
    assert answer == {"message": "Unexpected error in LLF. See the log of the Jupyter server."}

"""A data set of a hub: a loopback server stands in for it, and the client runs as it does for a user."""

import json
import os
import subprocess
import sys

import pytest

from tests.core.models.hub_server import Hub, serve

OPEN = """
import json, sys, time
from llf_core.data.errors import DataError
from llf_core.data.load import open_source, read_source
from llf_core.data.records import Record
from llf_core.data.sources import find_sources
import datasets, huggingface_hub.hf_api  # what is timed is the wait, on a machine that others use too
name, folder = json.loads(sys.argv[1])
began = time.monotonic()
try:
    (source,) = find_sources([name], folder)
    opened = open_source(source)
    rows = [one.row for one in read_source(opened, None, 0)]
    print(json.dumps({"rows": rows, "identity": opened.identity()[-1]}))
except DataError as error:
    print(json.dumps({"error": error.message, "seconds": time.monotonic() - began}))
"""
ROWS = [{"instruction": f"Q{number}", "output": f"A{number}"} for number in range(4)]


@pytest.fixture
def hub(write, tmp_path):
    """Serves `some/data`: four rows, the last two also as subset `late`; and `some/index`, a `dataset_info.json`."""
    write(ROWS, "set/all.jsonl")
    write(ROWS[2:], "set/late.jsonl")
    configs = "configs:\n- config_name: every\n  default: true\n  data_files: all.jsonl\n"
    write(f"---\n{configs}- config_name: late\n  data_files: late.jsonl\n---\n", "set/README.md")
    entry = {"hf_hub_url": "some/data", "subset": "late", "split": "train[:1]"}
    write(json.dumps({"mine": entry}), "index/dataset_info.json")
    served = Hub()
    served.repos |= {"some/data": tmp_path / "set", "some/index": tmp_path / "index", "some/gated": (403, "GatedRepo")}
    return served


@pytest.fixture
def ask(tmp_path):
    """Opens a data set in a process of its own, as the hub's client reads its settings at import."""

    def run(url, name, folder="nowhere", **further):
        env = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1", **further}
        command = [sys.executable, "-c", OPEN, json.dumps([name, folder])]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True, cwd=tmp_path)
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_a_set_is_fetched_and_kept_for_when_the_hub_is_away(hub, ask):
    with serve(hub) as url:
        fetched = ask(url, "some/data")
    assert fetched["rows"] == ROWS
    assert ask(url, "some/data") == fetched


def test_missing_certificates_are_named_and_the_cache_is_used_then(hub, ask):
    without = {"SSL_CERT_FILE": "/nowhere/certificates.pem", "REQUESTS_CA_BUNDLE": "/nowhere/certificates.pem"}
    with serve(hub) as url:
        fetched = ask(url, "some/data")
        assert ask(url, "some/data", **without) == fetched
        for name, folder in (("some/other", "nowhere"), ("mine", "REMOTE:some/index")):
            assert (
                "and SSL_CERT_FILE, SSL_CERT_DIR or REQUESTS_CA_BUNDLE names a file of certificates that is missing. "
                in (ask(url, name, folder, **without)["error"])
            )


def test_an_entry_may_name_subset_and_split_and_lie_on_the_hub_itself(hub, ask):
    with serve(hub) as url:
        assert ask(url, "mine", "REMOTE:some/index")["rows"] == ROWS[2:3]


def test_what_the_hub_refuses_and_where_nobody_answers(hub, ask):
    with serve(hub) as url:
        for name in ("some/gated", "some/none"):
            said = ask(url, name, "ONLINE")["error"]
            assert f"Look at {url}/datasets/{name}" in said
            assert "HF_TOKEN" in said
        hub.gated.add("some/index")  # its description may be read, its files not
        assert f"Look at {url}/datasets/some/index" in ask(url, "mine", "REMOTE:some/index")["error"]
    away = ask(url, "some/other")
    assert "the hub did not answer within 3 s" in away["error"]
    assert away["seconds"] < 10

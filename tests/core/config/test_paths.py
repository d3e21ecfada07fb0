import pytest

from llf_core.config import RunConfig
from llf_core.data.file_readers import READERS


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "conf").mkdir()
    return tmp_path / "conf"


def load(folder, text):
    (folder / "c.yaml").write_text(text)
    return RunConfig.load(folder / "c.yaml")


def test_relative_paths_start_at_the_file(folder):
    config = load(folder, "dataset: a.json, ../b.jsonl\noutput_dir: out/x\nmodel_name_or_path: ./m\ncache_dir: c\n")
    assert config.data.dataset == (str(folder / "a.json"), str(folder.parent / "b.jsonl"))
    assert config.training.output_dir == str(folder / "out" / "x")
    assert config.model.model_name_or_path == str(folder / "m")
    assert config.model.cache_dir == str(folder / "c")
    config = load(folder, "dataset: a\noutput_dir: ONLINE-results\ndataset_dir: ONLINE\n")
    assert (config.training.output_dir, config.data.dataset_dir) == (str(folder / "ONLINE-results"), "ONLINE")


def test_a_file_of_every_kind_that_can_be_read_is_a_path(folder):
    names = [f"rows.{kind}" for kind in READERS]
    assert load(folder, f"dataset: {','.join(names)}\n").data.dataset == tuple(str(folder / name) for name in names)


def test_names_and_hub_ids_are_no_paths(folder):
    config = load(folder, "dataset: identity,tatsu-lab/alpaca\nmodel_name_or_path: Qwen/Qwen3-0.6B\n")
    assert config.data.dataset == ("identity", "tatsu-lab/alpaca")
    assert config.model.model_name_or_path == "Qwen/Qwen3-0.6B"


def test_what_exists_is_a_path_but_for_the_embedded_model(folder):
    for name in ("org/model", "smollm2-135m-instruct", "mine", "sets/one"):
        (folder / name).mkdir(parents=True)
    assert load(folder, "dataset: sets/one\nmodel_name_or_path: org/model\n").data.dataset == (
        str(folder / "sets" / "one"),
    )
    assert load(folder, "dataset: x\nmodel_name_or_path: mine\n").model.model_name_or_path == str(folder / "mine")
    embedded = load(folder, "dataset: x\nmodel_name_or_path: smollm2-135m-instruct\n")
    assert embedded.model.model_name_or_path == "smollm2-135m-instruct"


def test_home_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert load(folder, "dataset: ~/a.csv\n").data.dataset == (str(folder / "a.csv"),)
    assert RunConfig.load({"dataset": "a.csv"}, base="~").data.dataset == (str(folder / "a.csv"),)
    assert RunConfig.load("dataset: a.csv\n", base="~").data.dataset == (str(folder / "a.csv"),)


def test_a_dict_starts_at_the_working_directory_or_at_base(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert RunConfig.load({"dataset": "a.json"}).data.dataset == (str(folder / "a.json"),)
    assert RunConfig.load({"dataset": "a.json"}, base=folder.parent).data.dataset == (str(folder.parent / "a.json"),)


def test_rows_of_a_cell_stay_beside_the_config(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    written = RunConfig.load({"dataset": "data/rows-1f.parquet"})
    assert "dataset: data/rows-1f.parquet\n" in written.yaml()
    assert load(folder, written.yaml(defaults=True)).data.dataset == (str(folder / "data" / "rows-1f.parquet"),)


def test_a_path_with_a_comma_is_given_in_a_list(folder):
    config = RunConfig.load({"dataset": ["a,b.json", "c"]}, base=folder)
    assert config.data.dataset == (str(folder / "a,b.json"), "c")
    assert load(folder, config.yaml()) == config


def test_the_default_data_folder_counts_where_it_is_one(folder):
    assert load(folder, "dataset: identity\n").data.dataset_dir == "data"
    (folder / "data").mkdir()
    (folder / "data" / "dataset_info.json").write_text("{}")
    assert load(folder, "dataset: identity\n").data.dataset_dir == str(folder / "data")
    assert load(folder, "dataset: identity\ndataset_dir: ONLINE\n").data.dataset_dir == "ONLINE"
    assert load(folder, "dataset: identity\ndataset_dir: sets\n").data.dataset_dir == str(folder / "sets")

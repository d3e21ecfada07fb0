import json
import struct
from pathlib import Path

from llf_core.config import RunConfig
from llf_widgets.forms import section_facts


def write_safetensors(path: Path, shapes: dict[str, list[int]]) -> None:
    """A safetensors file of float32 zeros, byte by byte as the format says."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"\0" * at)


def test_embedded_model_is_known_without_asking_anyone() -> None:
    assert section_facts.model_facts("smollm2-135m-instruct") == (
        "134.5 M parameters",
        "0.27 GB in bf16",
        "Apache-2.0",
    )


def test_folder_is_counted_over_all_its_files_and_names_its_licence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_safetensors(tmp_path / "model-00001-of-00002.safetensors", {"a": [10, 20], "b": [5]})
    write_safetensors(tmp_path / "model-00002-of-00002.safetensors", {"c": [3, 3, 3], "scalar": []})
    (tmp_path / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# A model\n")
    lines = section_facts.model_facts(str(tmp_path))
    assert lines[0] == "233 parameters"  # 200 + 5 + 27 + 1
    assert lines[2] == "mit"


def test_hub_id_says_nothing() -> None:
    assert section_facts.model_facts("someone/some-model") == ()


def test_share_that_is_trained_is_told() -> None:
    config = RunConfig.load({"dataset": "llf_demo"})
    assert section_facts.trainable_facts(config) == (
        "2.44 M parameters",
        "1.78 % of the model",
    )  # of 134.5 M and 2.44 M
    assert section_facts.trainable_facts(config.replace(model_name_or_path="someone/some-model")) == ()


def test_cut_file_counts_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{")
    assert section_facts.model_facts(str(tmp_path)) == ()


def test_counts_in_words() -> None:
    assert [section_facts.format_parameters(n) for n in (960, 134_515_008, 7_615_616_512)] == [
        "960",
        "134.5 M",
        "7.62 B",
    ]
    assert [section_facts.format_parameters(n) for n in (999_900_000, 999_960_000)] == ["999.9 M", "1.00 B"]


def test_a_hub_id_has_the_facts_of_the_catalog() -> None:
    assert section_facts.model_facts("Qwen/Qwen3-30B-A3B-Instruct-2507") == (
        "30B-A3B parameters",
        "262,144 tokens",
        "Apache-2.0",
    )
    assert section_facts.model_facts("gpt2") == ("1,024 tokens",) or section_facts.model_facts("gpt2") == ()
    assert section_facts.model_facts("somebody/their-model") == ()

"""A package outside the tree with a plug-in of each kind, as `docs/plugins.md` shows it, trains a real model."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from llf_core.runs import RunFolder, RunReader

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
RATE = 1e-3
TRAIN = """
import sys
from pathlib import Path
from llf_core.config import RunConfig, fields, validate
from llf_core.config.registry import broken
from llf_core.runs import create_run

config = Path(sys.argv[1]).read_text()
assert not validate(config).not_built + validate(config).not_needed, validate(config).problems
assert not broken(), broken()
assert [one.owner for one in fields() if one.key == "embedding_scale"] == ["modifier.scale"]
assert not {"torch", "transformers", "llf_example.work"} & set(sys.modules)
folder = create_run(RunConfig.load(config).yaml(defaults=True), "plugins")
from llf_core.data import dump_examples, prepare
from llf_core.models import load_tokenizer, resolve_model
from llf_core.training.session import run_attempt

loaded = RunConfig.load(config)
tokenizer = load_tokenizer(resolve_model(loaded.model.model_name_or_path), loaded)
dump_examples(prepare(loaded, tokenizer), Path(sys.argv[1]).parent / "examples.jsonl")
from llf_core.methods.method import apply_method
from transformers import AutoModelForCausalLM

own = RunConfig.load(config, ["finetuning_type=last_norms", "norm_layers=1"])
model = apply_method(AutoModelForCausalLM.from_pretrained(own.model.model_name_or_path), own)
names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
assert names == [f"model.layers.1.{one}_layernorm.weight" for one in ("input", "post_attention")], names
sys.exit(run_attempt(folder, 1))
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the package of the page, installed from a wheel that is written by hand."""
    folder = tmp_path_factory.mktemp("plugins")
    points: dict[str, dict[str, str]] = {}
    for block in blocks("toml"):
        for group, each in tomllib.loads(block)["project"]["entry-points"].items():
            points.setdefault(group, {}).update(each)
    norms, norms_method, declarations, implementations, echo, metrics = blocks("python")
    info = "llf_example-1.0.dist-info"
    files = {
        "llf_norms/__init__.py": norms,
        "llf_norms/method.py": norms_method,
        "llf_example/__init__.py": declarations,
        "llf_example/work.py": implementations,
        "llf_example/echo.py": echo,
        "llf_example/metrics.py": metrics,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: llf-example\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in each.items())
            for group, each in points.items()
        ),
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    wheel = folder / "llf_example-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", str(folder / "site")]
    subprocess.run([*pip, str(wheel)], check=True)
    return folder / "site"


@pytest.fixture(scope="module")
def run(site, tiny_model_dir, tmp_path_factory) -> RunFolder:
    """A run of two steps with all five."""
    folder = tmp_path_factory.mktemp("run")
    rows = [{"q": f"What is {number}?", "a": f"It is {number}."} for number in range(4)]
    (folder / "rows.json").write_text(json.dumps(rows))
    config = yaml.safe_load(blocks("yaml")[0]) | {
        "model_name_or_path": str(tiny_model_dir),
        "dataset": str(folder / "rows.json"),
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "learning_rate": RATE,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "use_cpu": True,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    program = f"import sys; sys.path.insert(0, {str(site)!r})\n{TRAIN}"
    done = subprocess.run(
        [sys.executable, "-c", program, str(folder / "config.yaml")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LLF_HOME": str(folder / "home")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "home" / "runs").iterdir()
    return RunFolder(path)


def test_the_optimizer_moves_what_the_method_trains_and_nothing_else(run, tiny_model_dir):
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_model_dir, run.output))
    moved = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert moved == {name for name in after if "norm" in name}
    steps = torch.cat([(after[name] - before[name]).abs() / RATE for name in moved])
    # Rprop's first step is the learning rate, its second 1.2 of it, or none where the gradient has changed its sign:
    # whether a weight does that hangs on the rounding of the processor.
    found = {round(step, 1) for step in steps.tolist()}
    assert 2.2 in found
    assert found <= {1.0, 2.2}


def test_the_loss_is_that_of_the_stage_on_scaled_embeddings(run, tiny_model_dir):
    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float64)
    total, count = 0.0, 0
    examples = (run.path.parents[2] / "examples.jsonl").read_text().splitlines()
    assert len(examples) == 4
    for example in map(json.loads, examples):
        ids, labels = (torch.tensor([example[name]]) for name in ("input_ids", "labels"))
        with torch.no_grad():
            logits = model(inputs_embeds=2 * model.get_input_embeddings()(ids)).logits
        (places,) = (labels[0, 1:] != -100).nonzero(as_tuple=True)
        found = logits.log_softmax(-1)[0, places, labels[0, 1:][places]]
        total, count = total - ((1 - found.exp()) ** 2 * found).sum().item(), count + len(found)
    losses = RunReader(run).metrics().values("loss")
    assert losses[0] == pytest.approx(total / count, rel=1e-5)


def test_a_chat_uses_the_engine_that_its_config_names(site, tmp_path):
    (tmp_path / "echo.yaml").write_text("model_name_or_path: org/model\ninfer_backend: echo\n")
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from llf_core.chat.request import ChatRequest\n"
        "from llf_core.chat.service import ChatService\n"
        "service = ChatService()\n"
        "name = service.add(sys.argv[1]).name\n"
        "request = ChatRequest(messages=({'role': 'user', 'content': 'Is anybody there?'},))\n"
        "print([type(one).__name__ for one in service.reply(name, request)], service.state(name).phase)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    made = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "echo.yaml")], capture_output=True, text=True, check=True
    )
    assert made.stdout == "['Started', 'Piece', 'Finished'] ready\n"


def test_metrics_of_a_package_score_answers(site):
    program = (
        f"import sys; sys.path.insert(0, {str(site)!r})\n"
        "from llf_core.metrics import ScoredExample, load_metrics, score_answers\n"
        "examples = [ScoredExample(reference='a b c d'), ScoredExample(reference='a')]\n"
        "for metric in load_metrics(['brevity', 'word_recall']):\n"
        "    found = score_answers(metric, ['a x', 'a'], examples)\n"
        "    print(found.scores, found.value)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    made = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert made.stdout == "(2.0, 1.0) 1.5\n(0.25, 1.0) 0.4\n"  # 2 of 5 words, which is not the mean of the scores


def test_each_implementation_of_ours_is_a_subclass_of_its_kind():
    from llf_core.chat.chat_engine import ChatEngine
    from llf_core.config.declaration import (
        ChatEngineDeclaration,
        FormatDeclaration,
        MethodDeclaration,
        MetricDeclaration,
        ModifierDeclaration,
        OptimizerDeclaration,
        StageDeclaration,
    )
    from llf_core.config.registry import DECLARATION_TYPES, declared
    from llf_core.data.formats import DatasetFormat
    from llf_core.methods.method import Method
    from llf_core.metrics.base_metric import Metric
    from llf_core.modifiers.modifier import Modifier
    from llf_core.optimizers.optimizer import Optimizer
    from llf_core.stages.base.stage import Stage

    bases = {
        MethodDeclaration: Method,
        ModifierDeclaration: Modifier,
        OptimizerDeclaration: Optimizer,
        StageDeclaration: Stage,
        FormatDeclaration: DatasetFormat,
        ChatEngineDeclaration: ChatEngine,
        MetricDeclaration: Metric,
    }
    assert set(bases) == set(DECLARATION_TYPES)
    for kind, base in bases.items():
        assert declared(kind)
        for one in declared(kind).values():
            if one.implementation:
                assert issubclass(one.load(base), base)
                assert not getattr(one.load(base), "__abstractmethods__", None), one.name

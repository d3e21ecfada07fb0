"""Which inference servers load the result of a config: the rules of `adapter_servers.toml`."""

from __future__ import annotations

import functools
import math
import os
import tomllib
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from llf_core.config.declarations.methods.lora import CHANGES_BASE
from llf_core.config.model import EMBEDDED
from llf_core.config.name_checks.model_folder import folder_of, settings_of
from llf_core.config.name_checks.models import family_of, is_path
from llf_core.config.new_tokens import adds_tokens
from llf_core.config.number_format import exact
from llf_core.config.paths import expanded
from llf_core.config.registry import method_of, stage_of
from llf_core.untrusted import read_object_or_empty

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.config.declaration import Tuner
    from llf_core.config.run_config import RunConfig

Verdict = Literal["yes", "setting", "no"]
"""Whether a server loads an adapter; `setting`: only with a setting, which the reason names."""
LABELS: Mapping[Verdict, str] = MappingProxyType({"yes": "yes", "setting": "with a setting", "no": "no"})
WHOLE = "The result is a whole model, which every server loads that knows its architecture."
WHOLE_REWARD = "The result is a reward model: a sequence classifier, which does not generate text."
LARGEST_RANK, LONGEST_TYPE = 1 << 20, 40
"""Limits of what an adapter's config, a file from anybody, may say."""


@dataclass(frozen=True)
class Adapter:
    """Properties of an adapter that servers depend on.

    Attributes:
        kind: PEFT's type, such as `LORA`.
        rank: r of its matrices; 0 if it has none.
        rslora: whether it is scaled by alpha / √r instead of alpha / r.
        whole_modules: whether modules that were trained in full, or rows of embeddings, are saved with it.
        experts: whether it has matrices for experts that are stored as one parameter.
        quantized: whether its run quantizes the base (`quantization_bit`).
        base: `model_type` of the base; None if it is unknown.
    """

    kind: str
    rank: int = 0
    dora: bool = False
    rslora: bool = False
    whole_alpha: bool = True
    whole_modules: bool = False
    experts: bool = False
    reward_head: bool = False
    quantized: bool = False
    base: str | None = None


@dataclass(frozen=True)
class ServerVerdict:
    """Whether a server loads an adapter; `source` is a file of the server, or a page."""

    server: str
    verdict: Verdict
    reason: str
    source: str


@dataclass(frozen=True)
class Servers:
    """Which servers load a result: `verdicts` about an adapter, or a sentence about a `whole` model."""

    verdicts: tuple[ServerVerdict, ...] = ()
    whole: str = ""

    def json(self) -> dict[str, Any]:
        """`whole`, and `verdicts` with the attributes of each and its `label`."""
        return {
            "whole": self.whole,
            "verdicts": [
                {
                    "server": one.server,
                    "verdict": one.verdict,
                    "label": LABELS[one.verdict],
                    "reason": one.reason,
                    "source": one.source,
                }
                for one in self.verdicts
            ],
        }


@dataclass(frozen=True)
class _Rule:
    when: str
    verdict: Verdict
    says: str
    source: str


@dataclass(frozen=True)
class _Server:
    name: str
    page: str
    yes: str
    rule: tuple[_Rule, ...]
    ranks: tuple[int, ...] = ()
    default_rank: int = 0
    architectures: tuple[str, ...] = ()
    by_gguf: tuple[str, ...] = ()


CONDITIONS: Mapping[str, Callable[[Adapter, _Server], bool]] = MappingProxyType(
    {
        "reward head": lambda adapter, _: adapter.reward_head,
        "other adapter": lambda adapter, _: adapter.kind != "LORA",
        "dora": lambda adapter, _: adapter.dora,
        "rslora": lambda adapter, _: adapter.rslora,
        "alpha with decimals": lambda adapter, _: not adapter.whole_alpha,
        "whole modules": lambda adapter, _: adapter.whole_modules,
        "experts": lambda adapter, _: adapter.experts,
        "quantized base": lambda adapter, _: adapter.quantized,
        "rank above all": lambda adapter, server: adapter.rank > max(server.ranks),
        "rank above default": lambda adapter, server: adapter.rank > server.default_rank,
        "other architecture": lambda adapter, server: adapter.base not in {None, *server.architectures},
        "unknown architecture": lambda adapter, _: adapter.base is None,
        "by gguf": lambda adapter, server: adapter.base in server.by_gguf,
    }
)
"""Conditions of the rules in `adapter_servers.toml`."""


def server_lines(servers: Mapping[str, Any] | None) -> list[str]:
    """One line for each server, `vLLM: yes. Serve the base with …`, from `Servers.json()`; or one for a whole model."""
    if servers is None:
        return []
    found = [f"{one['server']}: {one['label']}. {one['reason'].replace('`', '')}" for one in servers["verdicts"]]
    return [servers["whole"]] if servers["whole"] else found


def servers_for(adapter: Adapter) -> Servers:
    """Find which servers load an adapter, in the order of `adapter_servers.toml`."""
    return Servers(tuple(_verdict(server, adapter) for server in _servers()))


def servers_of_config(config: RunConfig, home: Path | None = None) -> Servers | None:
    """Find which servers will load the result of a config, by the configs of its model and of a continued adapter.

    Args:
        home: `LLF_HOME`; None if it is not known. Adapters of a base inside it are merged, since nobody else has this
            base.

    Returns:
        None if it is not known: the config of a continued adapter is missing or damaged, or a plug-in's method does not
        name its adapter.
    """
    method, base = method_of(config), base_type(config)
    continued = config.model.adapter_name_or_path or ()
    if _saves_whole_model(config, home):
        return _whole(config)
    if continued and not config.method.create_new_adapter:
        folder, inside = folder_of(continued[-1], config.model.cache_dir), config.model.adapter_folder or ""
        path = None if folder is None else Path(os.path.realpath(folder / inside / "adapter_config.json"))
        adapter = None if path is None else _of_file(read_object_or_empty(path))
    else:
        adapter = None if method.tuner is None else _of_tuner(method.tuner(config), config, base)
    return None if adapter is None else servers_for(_beside_base(adapter, config, base))


def servers_of_run(config: RunConfig, output: Path, home: Path, base: str | None) -> Servers | None:
    """Find which servers load the result of a run, from its own files alone: they may come from anybody.

    Args:
        output: folder of the result, which need not exist yet.
        base: `model_type` of the base; None if it is unknown.

    Returns:
        None if it is not known: a continued adapter has not been saved yet, the saved one is damaged, or a plug-in's
        method does not name its adapter.
    """
    stored = read_object_or_empty(output / "adapter_config.json")
    method = method_of(config)
    if stored:
        adapter = _of_file(stored)
    elif read_object_or_empty(output / "config.json") or _saves_whole_model(config, home):
        return _whole(config)
    elif method.tuner is None or (config.model.adapter_name_or_path and not config.method.create_new_adapter):
        return None
    else:
        adapter = _of_tuner(method.tuner(config), config, base)
    return None if adapter is None else servers_for(_beside_base(adapter, config, base))


def _saves_whole_model(config: RunConfig, home: Path | None) -> bool:
    """Whether a whole model is saved: the method makes no adapter, or it is merged since nobody else has its base.

    Nobody else has a base into which other adapters were merged, or one inside `LLF_HOME`. Adapters that are vectors
    before each example cannot be merged.
    """
    method = method_of(config)
    if not method.adapter:
        return True
    name, continued = config.model.model_name_or_path, config.model.adapter_name_or_path or ()
    merges = len(continued) > (0 if config.method.create_new_adapter else 1)
    inside = home is not None and is_path(name) and expanded(name).absolute().is_relative_to(home)
    return (merges or inside) and not method.prompts(config)


def base_type(config: RunConfig) -> str | None:
    """`model_type` of a config's model; None if it has no folder on this machine."""
    name = config.model.model_name_or_path
    if name == EMBEDDED:
        return "llama"
    folder = folder_of(name, config.model.cache_dir)
    return None if folder is None else named_type(settings_of(folder).get("model_type"))


def named_type(value: object) -> str | None:
    """A `model_type` of a file, cut to `LONGEST_TYPE`; None if it is no text, or empty."""
    return value[:LONGEST_TYPE] if isinstance(value, str) and value else None


def _whole(config: RunConfig) -> Servers:
    return Servers(whole=WHOLE_REWARD if stage_of(config).has_reward_head else WHOLE)


def _of_tuner(tuner: Tuner, config: RunConfig, base: str | None) -> Adapter:
    rank_key = method_of(config).rank_key
    rank = int(config.get(rank_key)) if rank_key else 0
    return Adapter(
        tuner.peft_type,
        # What takes from the base is saved as a plain LoRA of twice the rank.
        rank=2 * rank if config.get("lora_init") in CHANGES_BASE else rank,
        dora=bool(tuner.options.get("use_dora")),
        rslora=bool(tuner.options.get("use_rslora")),
        whole_alpha=isinstance(tuner.options.get("lora_alpha", 0), int),
        whole_modules=bool(config.method.additional_target) or adds_tokens(config),
        experts=tuner.on_parameters and _reaches_experts(config, tuner.targets, base),
    )


def _beside_base(adapter: Adapter, config: RunConfig, base: str | None) -> Adapter:
    quantized = config.model.quantization_bit is not None
    return replace(adapter, reward_head=stage_of(config).has_reward_head, quantized=quantized, base=base)


def _of_file(stored: Mapping[str, object]) -> Adapter | None:
    kind, rank = stored.get("peft_type"), stored.get("r", 0)
    if not isinstance(kind, str) or type(rank) is not int or not 0 <= rank <= LARGEST_RANK:
        return None
    return Adapter(
        kind[:LONGEST_TYPE],
        rank=rank,
        dora=stored.get("use_dora") is True,
        rslora=stored.get("use_rslora") is True,
        whole_alpha=isinstance(stored.get("lora_alpha", 0), int),
        whole_modules=bool(stored.get("modules_to_save") or stored.get("trainable_token_indices")),
        experts=bool(stored.get("target_parameters")),
    )


def _reaches_experts(config: RunConfig, targets: tuple[str, ...] | None, base: str | None) -> bool:
    family = family_of(config.model.model_name_or_path, base or "")
    experts = () if family is None else family.experts
    wanted = {name.rpartition(".")[2] for name in targets or ()}
    return bool(experts) and ("all" in wanted or not wanted.isdisjoint(experts))


def _verdict(server: _Server, adapter: Adapter) -> ServerVerdict:
    rule = next((one for one in server.rule if CONDITIONS[one.when](adapter, server)), None)
    if rule is None:
        return ServerVerdict(server.name, "yes", server.yes, server.page)
    reason = rule.says.format(
        rank=f"{adapter.rank:,}",
        setting=next((one for one in server.ranks if one >= adapter.rank), max(server.ranks, default=0)),
        scale=exact(round(math.sqrt(adapter.rank), 4)),
        kind=adapter.kind,
        base=adapter.base,
    )
    return ServerVerdict(server.name, rule.verdict, reason, rule.source)


@functools.cache
def _servers() -> tuple[_Server, ...]:
    tables = tomllib.loads(files(__package__).joinpath("adapter_servers.toml").read_text(encoding="utf-8"))["server"]
    found = []
    for one in tables:
        values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in one.items()}
        found.append(_Server(**values | {"rule": tuple(_Rule(**rule) for rule in one["rule"])}))
    return tuple(found)

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from llf_core.cli.errors import UsageError, in_a_sentence
from llf_core.cli.parameters import Trust
from llf_core.cli.terminal import err
from llf_core.install_command import install_command
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from llf_core.chat.server.guard import Access
    from llf_core.chat.service import ChatService

MISSING = "The server needs packages that are not installed: {}. Install them with: {}"


def serve(  # noqa: PLR0913, PLR0917 - one parameter an option
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TARGET]...",
            help="Run id, RUN@STEP, RUN@latest, `last`, a folder or hub id of a model or adapter.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(metavar="NAME=TARGET", help="Serve a target under a name; can be repeated.")
    ] = None,
    reward_model: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]TARGET", help="Reward model whose scores are served; can be repeated."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on. Others than loopback need an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any free one.", min=0, max=65535)] = 8000,
    api_key_env: Annotated[
        list[str] | None,
        typer.Option(metavar="VAR", help="Environment variable with an API key; can be repeated."),
    ] = None,
    generate_key: Annotated[bool, typer.Option(help="Generate an API key and print it once.")] = False,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Origin whose pages may use the server (CORS); can be repeated."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name of this machine in the header Host; can be repeated."),
    ] = None,
    idle_seconds: Annotated[
        float, typer.Option(help="Seconds without a request after which a model is unloaded.", min=1)
    ] = 600.0,
    max_waiting: Annotated[int, typer.Option(help="Maximum number of requests in the queue of a model.", min=1)] = 256,
    grace_seconds: Annotated[
        float, typer.Option(help="Seconds that running replies have after Ctrl-C or SIGTERM.", min=0, max=3600)
    ] = 30.0,
    trust: Trust = False,
) -> None:
    """Serve models, runs and adapters to any OpenAI client. Adapters of one base model share its weights."""
    try:
        from llf_core.chat.server.app import Server
        from llf_core.chat.server.listen import make_server, open_socket
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("llf"):
            raise
        raise UserError(MISSING.format(error.name, install_command("serve"))) from None
    from llf_core.chat.server.reward_process import RewardProcess
    from llf_core.chat.service import ChatService

    access, generated = _access(host, allow_host, api_key_env, allow_origin, generate_key)
    named = _named(targets, name, reward_model)
    rewards = _reward_models(reward_model or [])
    with in_a_sentence():
        listener = open_socket(host, port)
        service = ChatService(idle_seconds=idle_seconds, max_waiting=max_waiting, trust=trust)
        processes = {
            one: RewardProcess(target, idle_seconds=idle_seconds, max_waiting=max_waiting, trust=trust)
            for one, target in rewards.items()
        }
        try:
            for one, target in named:
                service.add(target, one)
            _check_rewards(service, rewards)
            for one in service.targets:
                service.start(one)
            server = Server(service, access, rewards=processes)
            shown_port = listener.getsockname()[1]
            make_server(
                server,
                grace_seconds=grace_seconds,
                started=lambda: _print_start(service, host, shown_port, generated),
            ).run([listener])
        finally:
            listener.close()
            service.close()
            for process in processes.values():
                process.close()


def _access(
    host: str, hosts: list[str] | None, variables: list[str] | None, origins: list[str] | None, generate: bool
) -> "tuple[Access, str | None]":
    """Who may use the server, and the generated key."""
    from llf_core.chat.server.guard import ANY_ORIGIN, Access, is_loopback, keys_of, new_key

    exposed = not is_loopback(host)
    keys = keys_of(variables or [], exposed=exposed)
    generated = new_key() if generate else None
    if generated is not None:
        keys.append(generated)
    if exposed and not keys:
        raise UsageError(
            f"Other machines reach {host}, and there is no API key.",
            "Name an environment variable with one (--api-key-env), generate one (--generate-key), or serve on "
            "127.0.0.1.",
        )
    if ANY_ORIGIN in (origins or []) and not keys:
        raise UsageError("--allow-origin '*' lets every web page use the server.", "Add an API key, or name origins.")
    return Access(host, tuple(hosts or ()), tuple(keys), tuple(origins or ())), generated


def _reward_models(given: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in given:
        name, target = _reward_model(one)
        if name in found:
            raise UsageError(f"Two reward models are called {name[:200]!r}.", "Name them: NAME=TARGET.")
        found[name] = target
    return found


def _reward_model(given: str) -> tuple[str, str]:
    name, sign, target = given.partition("=")
    if not sign:
        name, target = given.rstrip("/").rpartition("/")[2], given
    if not name.strip() or not target.strip():
        raise UsageError(f"--reward-model {given[:200]!r} is not TARGET or NAME=TARGET.")
    return name, target


def _check_rewards(service: "ChatService", rewards: dict[str, str]) -> None:
    """Find the reward models, without loading them."""
    if not rewards:
        return
    from llf_core.config import RunConfig
    from llf_core.models.reward_model_files import find_reward_model

    config = RunConfig.load({"dataset": "unused", "finetuning_type": "lora"})
    for name, target in rewards.items():
        if name in service.targets:
            raise UsageError(f"Two models are called {name[:200]!r}.", "Name the reward model: NAME=TARGET.")
        find_reward_model(target, config)


def _named(
    targets: list[str] | None, names: list[str] | None, rewards: list[str] | None
) -> list[tuple[str | None, str]]:
    """Targets with their names; None for a target's own."""
    named: list[tuple[str | None, str]] = []
    for one in names or []:
        name, sign, target = one.partition("=")
        if not sign or not name.strip() or not target.strip():
            raise UsageError(f"--name {one[:200]!r} is not NAME=TARGET.")
        if name in {known for known, _ in named}:
            raise UsageError(f"--name {name[:200]!r} is given twice.", "Expected a name for one target.")
        named.append((name, target))
    named += [(None, target) for target in targets or []]
    if not named and not rewards:
        raise UsageError("There is nothing to serve.", "Name a run, a model or an adapter.")
    return named


def _print_start(service: "ChatService", host: str, port: int, generated: str | None) -> None:
    shown_host = f"[{host}]" if ":" in host else host
    for name, target in service.targets.items():
        err.print(f"{escape(name)}: {escape(target.label)}, base {escape(target.base)}")
    if generated is not None:
        err.print(f"API key, shown only now: {generated}")
    err.print(f"Serving at http://{shown_host}:{port}/v1. Ctrl-C ends it.")

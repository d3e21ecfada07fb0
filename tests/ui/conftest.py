"""JupyterLab on loopback and a chromium page, for the tests that look as a reader does."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import nbformat
import pytest

from tests.forking import warm_jupyter
from tests.processes import end, processes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llf_core.runs import RunFolder
    from tests.forking import ForkServer

PYTHON = sys.executable
REPOSITORY = Path(__file__).parents[2]
PANEL = REPOSITORY / "llf_widgets" / "labextension"
AXE = REPOSITORY / "labextension" / "node_modules" / "axe-core" / "axe.min.js"
TOKEN = "llf-test-token"
EVIL = "<img src=x onerror='window.llfHacked=1'>"
SETTINGS = {
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": (
        '{"fetchNews": "false", "checkForUpdates": false}'
    ),
    "@jupyterlab/docmanager-extension/plugin.jupyterlab-settings": '{"autosave": false}',
}
VIEWPORT = {"width": 1280, "height": 1000}
CLOSE = "() => { for (const widget of [...window.jupyterapp.shell.widgets('main')]) widget.dispose(); }"
OPEN = f"""path => {{
  ({CLOSE})();
  return window.jupyterapp.commands.execute('docmanager:open', {{path}}).then(() => null);
}}"""
FREE_PORT_LINE = 120.0  # seconds for the server to say where it listens


@dataclass
class Lab:
    """A running JupyterLab: `url` ends with a slash, `root` holds its notebooks, `home` is its LLF_HOME."""

    url: str
    root: Path
    home: Path
    server: Server

    def notebook(self, name: str, *cells: str) -> Path:
        """Writes a notebook of code cells."""
        book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
        path = self.root / name
        nbformat.write(book, path)
        return path

    def address(self, name: str, app: str = "lab") -> str:
        """Where a notebook opens: `lab` or `notebooks` (Notebook 7)."""
        path = f"lab/tree/{quote(name)}" if app == "lab" else f"notebooks/{quote(name)}"
        return f"{self.url}{path}?token={TOKEN}" + ("&reset" if app == "lab" else "")

    def open(self, page: Any, name: str) -> None:
        """Opens a notebook in JupyterLab and waits for its kernel; in the place of others if JupyterLab is there."""
        if page.url.startswith(f"{self.url}lab"):
            page.evaluate(OPEN, name)
        else:
            page.goto(self.address(name))
        self.settle(page)

    def leave(self, page: Any) -> None:
        """Closes what a test has opened in JupyterLab, and puts back what it changed there."""
        page.evaluate(CLOSE)
        if page.locator("body[data-jp-theme-light='false']").count():
            set_theme(page, "JupyterLab Light")
        page.set_viewport_size(VIEWPORT)

    def settle(self, page: Any) -> None:
        """Waits until JupyterLab stands and the notebook's kernel is connected."""
        page.wait_for_function("window.jupyterapp && window.jupyterapp.restored", timeout=120_000)
        page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell", timeout=120_000)
        page.wait_for_function(
            "() => { const w = window.jupyterapp.shell.currentWidget;"
            " const k = w?.sessionContext?.session?.kernel;"
            " return k && (k.status === 'idle' || k.status === 'busy'); }",
            timeout=120_000,
        )

    def run_all(self, page: Any) -> None:
        """Runs all cells without waiting for them."""
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")

    def run_cell(self, page: Any, index: int, source: str | None = None) -> None:
        """Runs one cell, with another source where one is given, without waiting for it."""
        page.evaluate(
            "([index, source]) => { const book = window.jupyterapp.shell.currentWidget.content;"
            " book.activeCellIndex = index;"
            " if (source !== null) book.activeCell.model.sharedModel.setSource(source);"
            " window.jupyterapp.commands.execute('notebook:run-cell'); }",
            [index, source],
        )

    def save(self, page: Any) -> None:
        """Saves the notebook."""
        page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save').then(() => null)")

    def end_kernels(self) -> None:
        """Ends all kernels, if the server runs."""
        with contextlib.suppress(OSError):  # a test may have stopped the server
            for kernel in json.load(self._request("GET", "kernels")):
                with contextlib.suppress(urllib.error.HTTPError):  # it has ended meanwhile
                    self._request("DELETE", f"kernels/{kernel['id']}").close()

    def _request(self, method: str, path: str) -> Any:
        request = urllib.request.Request(
            f"{self.url}api/{path}", method=method, headers={"Authorization": f"token {TOKEN}"}
        )
        return urllib.request.urlopen(request, timeout=30)


def set_theme(page: Any, theme: str) -> None:
    """Changes JupyterLab's theme, and waits until the page can be used again.

    JupyterLab hides its whole shell while it loads a theme, and shows it again below a splash screen some frames after
    the page says that the theme has changed. A click in between can reach the splash instead of its button.

    Args:
        page: a page with JupyterLab.
        theme: `JupyterLab Light` or `JupyterLab Dark`.
    """
    page.evaluate("theme => { window.jupyterapp.commands.execute('apputils:change-theme', {theme}); }", theme)
    light = str(theme == "JupyterLab Light").lower()
    page.wait_for_selector(f"body[data-jp-theme-light='{light}']", state="attached", timeout=120_000)
    page.wait_for_function("() => !document.querySelector('#main.lm-mod-hidden, #jupyterlab-splash')", timeout=120_000)


def settled(page: Any, look: Callable[[], Any], ready: Callable[[Any], bool] = lambda _: True) -> Any:
    """What is seen once two looks give the same: for what a page moves or draws when it has time.

    Args:
        page: the page, which goes on between two looks.
        look: a look at it.
        ready: whether what is seen can be all; a page that was held up shows the same twice before it has drawn.
    """
    until = time.monotonic() + PATIENCE / 1000
    before, now = None, look()
    while now != before or not ready(now):
        assert time.monotonic() < until, f"It is not there, or still changes: {now}"
        page.wait_for_timeout(400)
        before, now = now, look()
    return now


PATIENCE = 120_000
"""Milliseconds that an expectation waits on a machine that others use too. What must be fast names its own limit."""


def browser_path() -> str:
    """The browser of these tests.

    A machine without one fails them with a sentence; it never passes silently.
    """
    for name in ("LLF_CHROMIUM", "CHROMIUM"):
        if os.environ.get(name):
            return os.environ[name]
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found:
            return found
    pytest.fail("No chromium was found. Install it (apt-get install chromium) or set LLF_CHROMIUM to its path.")


class Server:
    """A JupyterLab process that can be stopped and started again at its old address.

    Args:
        base: a folder of its own.
    """

    def __init__(self, base: Path) -> None:
        self.root, self.home = base / "notebooks", base / "home"
        self._data, self._log, config, self.share = base / "data", base / "lab.log", base / "config", base / "share"
        self.profiles = base / "ipython"
        for folder in (self.root, self.home, self._data, config):
            folder.mkdir()
        self.settings = config / "lab" / "user-settings"
        for name, text in SETTINGS.items():
            path = self.settings / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if (PANEL / "package.json").is_file():  # the panel of this tree, whichever one is installed
            (self.share / "labextensions").mkdir(parents=True)
            (self.share / "labextensions" / "llf-labextension").symlink_to(PANEL)
        self._env = os.environ | {
            "LLF_HOME": str(self.home),
            "JUPYTER_PATH": str(self.share),
            "JUPYTER_CONFIG_DIR": str(config),
            "JUPYTER_RUNTIME_DIR": str(self._data),
            "JUPYTERLAB_SETTINGS_DIR": str(self.settings),
            "IPYTHONDIR": str(self.profiles),
            "PATH": f"{Path(PYTHON).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, port: int = 0) -> str:
        """Starts it at a port, any free one unless given; returns its address once it answers."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    PYTHON,
                    "-m",
                    "jupyterlab",
                    "--no-browser",
                    "--allow-root",
                    "--ip=127.0.0.1",
                    f"--port={port}",
                    "--ServerApp.port_retries=0",
                    f"--IdentityProvider.token={TOKEN}",
                    f"--ServerApp.root_dir={self.root}",
                    "--ServerApp.base_url=/user/ada/",  # as a hub has it
                    "--LabApp.expose_app_in_browser=True",
                    "--LabApp.news_url=None",
                    # Or each page asks whether JupyterLab must be built again, which takes the server a second.
                    "--ServerApp.tornado_settings={'page_config_data': {'buildCheck': False, 'buildAvailable': False}}",
                    "--ServerApp.jpserver_extensions={'llf_widgets': True, 'notebook': True}",
                ],
                env=self._env,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return _wait_for_url(self._data, self._process, self._log)

    def start_to_restart(self) -> str:
        """Starts it as `start` does, at a port that stays free while it is stopped.

        The system lends free ports to whoever connects or listens meanwhile; those below its range it lends to nobody.
        """
        lent = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
        for port in random.Random(os.getpid()).sample(range(max(1024, lent // 2), max(lent, 32_768)), 100):
            with socket.socket() as place, contextlib.suppress(OSError):
                place.bind(("127.0.0.1", port))
                break
        return self.start(port)

    def stop(self, *numbers: int) -> None:
        """Ends it with its kernels: by SIGTERM, then SIGKILL, unless signals are given."""
        process = self._process
        for number in numbers or (signal.SIGTERM, signal.SIGKILL):
            if process is not None and process.poll() is None:
                os.killpg(process.pid, number)
                try:
                    process.wait(8 if number != signal.SIGINT else 2)
                except subprocess.TimeoutExpired:
                    continue


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, fork_server: ForkServer, kernel_server: ForkServer) -> Iterator[Lab]:
    """JupyterLab with this package, its own LLF_HOME and no news, ended with its kernels.

    Kernels begin with the notebook views loaded, what they start (trainers, engines, previews) with torch loaded.
    """
    server = Server(tmp_path_factory.mktemp("lab"))
    warm_jupyter(server.profiles, server.share, kernel_server, fork_server)
    try:
        yield Lab(url=server.start(), root=server.root, home=server.home, server=server)
    finally:
        server.stop(signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
        end(processes_of(server.home))


def _wait_for_url(runtime: Path, server: subprocess.Popen[bytes], log: Path) -> str:
    """Reads the address from the server's own record, and waits until it answers."""
    end = time.monotonic() + FREE_PORT_LINE
    while time.monotonic() < end and server.poll() is None:
        for record in runtime.glob(f"jpserver-{server.pid}.json"):
            try:
                url = json.loads(record.read_text())["url"]
                urllib.request.urlopen(f"{url}api/status?token={TOKEN}", timeout=5)
            except (OSError, ValueError, KeyError):
                continue
            return url
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless chromium."""
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser_path(), args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def default_theme(request: pytest.FixtureRequest) -> None:
    """Forgets the theme that an earlier test chose: JupyterLab keeps it in the user's settings."""
    if "lab" in request.fixturenames:
        settings = request.getfixturevalue("lab").server.settings / "@jupyterlab" / "apputils-extension"
        (settings / "themes.jupyterlab-settings").unlink(missing_ok=True)


@pytest.fixture(autouse=True)
def ended_kernels(request: pytest.FixtureRequest) -> Iterator[None]:
    """Ends the kernels that a test has started, whose views would go on reading their runs beside later tests."""
    yield
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab").end_kernels()


STORED = "cookies,local_storage,indexeddb,service_workers,cache_storage"
"""What a page can store in the browser, but for its cache of files."""


@pytest.fixture(scope="session")
def context(browser: Any) -> Any:
    """The context of all pages: its cache holds JupyterLab's scripts, which are large, as loaded and compiled once."""
    return new_context(browser, viewport=VIEWPORT)


def new_context(browser: Any, **options: Any) -> Any:
    """A context whose pages have the patience of the expectations."""
    made = browser.new_context(**options)
    made.set_default_timeout(PATIENCE)
    return made


@pytest.fixture
def page(context: Any) -> Iterator[Any]:
    """A fresh page of 1280 by 1000; afterwards all pages are closed, and what they stored or were allowed is gone."""
    yield context.new_page()
    forget(context)


@pytest.fixture
def routed_page(context: Any) -> Iterator[Any]:
    """A page whose requests a test may answer itself, in a module that uses `reused_page`; closed with the test.

    When a page's routes end, a request on its way may never be answered. If it is JupyterLab's for the list of
    sessions, JupyterLab waits for it before it starts a kernel, until the page is loaded again.
    """
    page = context.new_page()
    yield page
    page.close()


@pytest.fixture(scope="module")
def module_page(context: Any) -> Iterator[Any]:
    """The page of `reused_page`."""
    yield context.new_page()
    forget(context)


@pytest.fixture
def reused_page(module_page: Any, lab: Lab) -> Iterator[Any]:
    """A page in which JupyterLab may be open already, without any document: loading it takes seconds.

    For modules whose tests open notebooks and neither change JupyterLab itself (its sidebars, say) nor listen to events
    of the page nor answer its requests (see `routed_page`). Such a module has `page` return it.
    """
    module_page.evaluate("() => { delete window.llfHacked; }")
    yield module_page
    if "/lab" in module_page.url:
        lab.leave(module_page)
        if module_page.evaluate("() => performance.getEntriesByType('navigation')[0].type") == "reload":
            module_page.goto("about:blank")  # JupyterLab would put a notebook back late, over the next one


def forget(context: Any) -> None:
    """Closes all pages; what they stored or were allowed is gone."""
    places = [urlsplit(one.url) for one in context.pages]
    origins = {f"{place.scheme}://{place.netloc}" for place in places if place.netloc}
    for one in context.pages:
        one.close()
    context.unroute_all()
    context.clear_permissions()
    context.clear_cookies()
    blank = context.new_page()
    session = context.new_cdp_session(blank)
    for origin in origins:
        session.send("Storage.clearDataForOrigin", {"origin": origin, "storageTypes": STORED})
    blank.close()


# Each violation as a rule with the elements that break it. Frames have scripts of their own and are left out.
AXE_RUN = """
async selector => {
  const {violations} = await axe.run(selector, {iframes: false, resultTypes: ['violations']});
  return violations.map(({id, help, nodes}) => ({
    id, help, where: nodes.map(({target, html, failureSummary}) => `${target}: ${html}\\n${failureSummary}`)
  }));
}
"""


@pytest.fixture(scope="session")
def axe() -> Callable[..., list[dict[str, Any]]]:
    """Checks what a page shows below a selector with axe-core: WCAG's rules and its best practices.

    Returns:
        A function of a page and a CSS selector. It answers the violations, each `{"id", "help", "where"}`,
        `where` naming the elements; none are `[]`.
    """
    if not AXE.is_file():
        pytest.fail("axe-core is not there. Run `jlpm install` in labextension/.")
    source = AXE.read_text(encoding="utf-8")

    def violations(page: Any, selector: str) -> list[dict[str, Any]]:
        if not page.evaluate("() => 'axe' in window"):
            page.evaluate(source)
        return page.evaluate(AXE_RUN, selector)

    return violations


@pytest.fixture
def real(lab: Lab, tiny_model_dir: Path, tmp_path: Path, warm_python: Path) -> Iterator[Callable[..., Any]]:
    """Starts runs of a tiny real model in the Lab's own LLF_HOME; ended with the test."""
    from llf_core.launch import launch

    rows = [{"instruction": f"Say {i}. {EVIL if i == 7 else ''}", "output": f"It is {i}."} for i in range(40)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    started: list[Any] = []

    def start(**changes: Any) -> Any:
        config = {
            "model_name_or_path": str(tiny_model_dir), "dataset": str(tmp_path / "rows.json"), "val_size": 8,
            "per_device_train_batch_size": 4, "max_steps": 20_000, "learning_rate": 1e-3, "logging_steps": 1,
            "save_steps": 200, "watched_prompts": "Say hi.", "watched_tokens": 6, "lr_scheduler_type": "constant",
            "threads": 1,  # the browser, the server and the tests beside this one need a core too
        }  # fmt: skip
        started.append(launch(config | changes, home=lab.home))
        return started[-1]

    yield start
    for run in started:
        if not run.status().has_ended:
            run.kill()
            run.wait(30, progress=False)


@pytest.fixture
def tuned_run(lab: Lab, tiny_model_dir: Path, tmp_path: Path) -> Iterator[RunFolder]:
    """A finished run in the Lab's own LLF_HOME whose result is a LoRA of random weights; gone with the test."""
    import yaml
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from llf_core.runs import create_run, status

    rows = [{"instruction": f"What is {n} plus 1?", "output": f"It is {n + 1}."} for n in range(8)]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    settings = {
        "model_name_or_path": str(tiny_model_dir), "finetuning_type": "lora", "dataset": str(tmp_path / "rows.json"),
        "val_size": 4,
    }  # fmt: skip
    folder = create_run(yaml.safe_dump(settings), "tuned", lab.home)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model_dir),
        LoraConfig(target_modules="all-linear", lora_alpha=64, init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    model.save_pretrained(folder.output)
    AutoTokenizer.from_pretrained(tiny_model_dir).save_pretrained(folder.output)
    status.update(folder, state="finished", step=4, total=4)
    yield folder
    shutil.rmtree(folder.path)

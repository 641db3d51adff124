"""A real JupyterLab, a real Chromium: one of each for all tests, a notebook of its own for every test.

Nothing here is skipped: without a browser or a server these tests fail and say what is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
START_S = 60
expect.set_options(timeout=20_000)  # on a loaded machine a kernel takes its time; nothing waits longer than it must


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = os.environ.get("KVMLAB_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    with sync_playwright() as playwright:
        # Without a browser on PATH, the one that `playwright install chromium` brought; else this fails and says so.
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


class Lab:
    """A running JupyterLab."""

    def __init__(self, url: str, folder: Path, log: Path) -> None:
        self.url, self.folder, self.log = url, folder, log
        self._count = 0

    def write(self, cells: list[str]) -> str:
        """A notebook with these code cells; its name."""
        self._count += 1
        name = f"test_{self._count}.ipynb"
        notebook = {
            "cells": [{"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": text, "outputs": [],
                       "execution_count": None} for i, text in enumerate(cells)],
            "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
            "nbformat": 4, "nbformat_minor": 5,
        }
        (self.folder / name).write_text(json.dumps(notebook))
        return name


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    home = tmp_path_factory.mktemp("jupyter")
    folder = tmp_path_factory.mktemp("notebooks")
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = home / "lab.log"
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"), "IPYTHONDIR": str(home / "ipython"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.port={port}",
               "--ServerApp.port_retries=0",
               "--ServerApp.ip=127.0.0.1", "--IdentityProvider.token=", "--ServerApp.password=",
               f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True",
               "--ServerApp.jpserver_extensions={'kvmlab.server': True}"]
    if os.getuid() == 0:
        command.append("--allow-root")
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_S
    while True:
        try:
            urllib.request.urlopen(f"{url}/api", timeout=1).close()
            break
        except OSError:
            if server.poll() is not None or time.monotonic() > deadline:
                server.kill()
                pytest.fail(f"JupyterLab did not start:\n{log.read_text(errors='replace')[-3000:]}")
            time.sleep(0.05)
    yield Lab(url, folder, log)
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()


class Sheet:
    """An open notebook."""

    def __init__(self, page: Page, lab: Lab) -> None:
        self.page, self.lab = page, lab

    @property
    def bench(self) -> Locator:
        """The bench in the output of a cell."""
        return self.page.locator(".jp-OutputArea-output .kvmlab").last

    def panel(self, name: str) -> Locator:
        return self.bench.locator(f'[data-place="{name}"]')

    def press(self, verb: str) -> None:
        """Clicks a button of the toolbar and waits until Python has answered."""
        self.settle(lambda: self.bench.locator(f'[data-verb="{verb}"]').first.click())

    def settle(self, action: object) -> None:
        """Does something that asks Python, and waits until the answer is drawn and nothing runs any more."""
        action()  # type: ignore[operator]
        self.page.wait_for_function(
            """root => Number(root.dataset.answered) >= Number(root.dataset.asked ?? 0)
                       && root.dataset.running !== "true" """,
            arg=self.bench.element_handle())

    def tab(self, name: str) -> Locator:
        """Opens a tab of the stage."""
        self.bench.locator(f'[data-tab="{name}"]').click()
        panel = self.panel(name)
        expect(panel).to_be_visible()
        return panel

    def run(self) -> None:
        """Runs all cells, and fails with the output if one of them fails."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")

    def theme(self, name: str) -> None:
        change = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
        self.page.evaluate(change, THEMES[name])
        light = "true" if name == "light" else "false"
        self.page.wait_for_function(f"() => document.body.dataset.jpThemeLight === '{light}'")


@pytest.fixture
def open_notebook(lab: Lab, browser: Browser) -> Iterator[object]:
    """``open_notebook(*cells, width=…)``: a notebook with these cells, run, as a Sheet."""
    pages: list[Page] = []

    def open_(*cells: str, width: int = 1400, height: int = 1100) -> Sheet:
        page = browser.new_page(viewport={"width": width, "height": height})
        pages.append(page)
        page.goto(f"{lab.url}/lab/tree/{lab.write(list(cells))}?reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=START_S * 1000)
        kernel = "window.jupyterapp?.shell?.currentWidget?.sessionContext?.session?.kernel"
        page.wait_for_function(f"() => {kernel}?.connectionStatus === 'connected'", timeout=START_S * 1000)
        sheet = Sheet(page, lab)
        sheet.run()
        return sheet

    yield open_
    for page in pages:
        page.close()

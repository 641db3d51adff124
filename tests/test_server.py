"""kvmlab.server: delay off on every kernel websocket, nothing else touched, nothing heavy loaded."""

import asyncio
import logging
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kvmlab import server

from running import run


class Handler:
    """The shape of the handler that Jupyter's server has."""

    def __init__(self) -> None:
        self.said: list[object] = []
        self.log = logging.getLogger("test")

    def set_nodelay(self, value: bool) -> None:
        self.said.append(("nodelay", value))

    async def open(self, kernel_id: str) -> None:
        self.said.append(("open", kernel_id))


def opened(handler: type) -> list[object]:
    one = handler()
    # In a thread of its own: the browser's tests may have a loop in this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, one.open("k")).result()
    said: list[object] = one.said
    return said


def test_takes_the_delay_off_before_opening() -> None:
    handler = type("Mine", (Handler,), {})
    server.wrap_open(handler)
    assert opened(handler) == [("nodelay", True), ("open", "k")]


def test_twice_is_once() -> None:
    handler = type("Mine", (Handler,), {})
    server.wrap_open(handler)
    server.wrap_open(handler)
    assert opened(handler) == [("nodelay", True), ("open", "k")]


def test_a_socket_that_is_gone_still_opens() -> None:
    class Gone(Handler):
        def set_nodelay(self, value: bool) -> None:
            raise OSError("gone")

    server.wrap_open(Gone)
    assert opened(Gone) == [("open", "k")]


@pytest.mark.parametrize("missing", ["set_nodelay", "open"])
def test_an_unknown_handler_is_left_alone_with_one_line(
    missing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    websocket = pytest.importorskip("jupyter_server.services.kernels.websocket")
    methods = {name: getattr(Handler, name) for name in ("set_nodelay", "open") if name != missing}
    monkeypatch.setattr(websocket, "KernelWebsocketHandler", type("Other", (), methods))

    class App:
        log = logging.getLogger("app")

    with caplog.at_level(logging.WARNING):
        server._load_jupyter_server_extension(App)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "left alone" in caplog.text


def test_loads_neither_engine_nor_numpy() -> None:
    code = "import sys, kvmlab.server; print({'numpy', 'cffi', '_cffi_backend', 'kvmlab.engine'} & {*sys.modules})"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


REAL_SERVER = """
import socket, sys
from jupyter_server.serverapp import ServerApp
from jupyter_server.services.kernels.websocket import KernelWebsocketHandler
from tornado.websocket import websocket_connect

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
app = ServerApp.instance()
app.initialize(argv=[
    "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={sys.argv[1]}",
    "--IdentityProvider.token=", "--ServerApp.password=", f"--ServerApp.jpserver_extensions={sys.argv[2]}",
])
known = KernelWebsocketHandler.open

async def watched(self, kernel_id):
    await known(self, kernel_id)
    stream = self.ws_connection.stream
    print("nodelay", bool(stream.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)), flush=True)

KernelWebsocketHandler.open = watched

async def connect():
    try:
        kernel = await app.kernel_manager.start_kernel()
        connection = await websocket_connect(f"ws://127.0.0.1:{port}/api/kernels/{kernel}/channels")
        await connection.read_message()
        connection.close()
    finally:
        app.stop()

app.io_loop.add_callback(connect)
app.start()
"""


@pytest.mark.parametrize("enabled", [True, False])
def test_a_real_server_with_and_without(enabled: bool, tmp_path: Path) -> None:
    """Open a kernel's websocket on Jupyter's server and ask the kernel (the machine's) whether the delay is off."""
    extensions = repr({"kvmlab.server": enabled})
    output = run(
        sys.executable,
        "-c",
        REAL_SERVER,
        tmp_path,
        extensions,
        env={
            "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
            "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
            "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        },
        timeout=120,
    )
    assert f"nodelay {enabled}" in output.splitlines()

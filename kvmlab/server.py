"""The Jupyter server extension: kernel websockets without Nagle's delay.

A click in a widget is a small message to the kernel and a small message back. Left alone, TCP holds a small message
until the one before is acknowledged, and the browser acknowledges late: about 45 ms at the 95th percentile, which
is what makes stepping feel sticky. ``set_nodelay(True)`` on the websocket brings the round trip to about 15 ms.

It acts on every kernel of the server it is loaded into, ours or not, and changes nothing but that delay. The wheel
enables it by ``etc/jupyter/jupyter_server_config.d/kvmlab.json``; ``jupyter server extension disable kvmlab.server``
turns it off. This module is loaded by the server's process, so it imports neither the engine nor anything heavy.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

MARK = "_kvmlab_nodelay"


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "kvmlab.server"}]


def _load_jupyter_server_extension(serverapp: Any) -> None:
    """Make every kernel websocket that opens from now on send its messages at once."""
    try:
        from jupyter_server.services.kernels.websocket import KernelWebsocketHandler

        wrap_open(KernelWebsocketHandler)
    except (ImportError, AttributeError, TypeError) as error:
        serverapp.log.warning("kvmlab.server: the kernel websocket here is not as known and is left alone: %s", error)


# The name that servers before jupyter_server 2 look for.
load_jupyter_server_extension = _load_jupyter_server_extension


def wrap_open(handler: type) -> None:
    """Put ``set_nodelay(True)`` before the handler's own ``open``; a second call changes nothing.

    Raises
    ------
    AttributeError, TypeError
        If the handler has no ``set_nodelay`` or its ``open`` is not a coroutine function: not the handler we know.
    """
    known: Any = handler.open  # type: ignore[attr-defined]
    if getattr(known, MARK, False):
        return
    if not callable(handler.set_nodelay):  # type: ignore[attr-defined]
        raise TypeError("set_nodelay is not a method")
    if not inspect.iscoroutinefunction(known):
        raise TypeError("open is not a coroutine function")

    @functools.wraps(known)
    async def open_without_delay(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            self.set_nodelay(True)
        except Exception as error:  # a socket already gone, a stream of another kind: never a reason not to connect
            self.log.debug("kvmlab.server: set_nodelay: %s", error)
        await known(self, *args, **kwargs)

    setattr(open_without_delay, MARK, True)
    handler.open = open_without_delay  # type: ignore[attr-defined]

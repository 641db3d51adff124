"""One virtual machine and every view of it: takes requests, moves the machine, tells each view what changed.

No Jupyter in here: a view is anything with ``panels`` and ``deliver()``, so all of it is tested without a browser.
Requests come from the kernel's main thread or from a subshell; what may take long runs in a thread of its own under
the machine's lock, so that the stop button is heard meanwhile.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import BadArgument, Busy
from . import driver, model
from .history import History
from .protocol import Delta, Panel, diff
from .scene import Failure, Look, Moment, Progress, Scene, failure

WAIT_S = 0.04
"""How long a request waits for its thread before it answers "running"."""
OTHERS_S = 0.1
"""What a cell does to the machine is shown at most this often."""
TICK_S = 0.2
"""How often a long run says how far it is."""


class Viewer(Protocol):
    """What a session needs of a view."""

    panels: frozenset[str]

    def deliver(self, delta: Delta, state: Mapping[str, Panel]) -> None:
        """Take in what changed; ``state`` is all there is now."""


class Session:
    """The state of all panels of one machine.

    Parameters
    ----------
    machine : VM, Machine or None
        None shows an empty bench.
    """

    def __init__(self, machine: Any = None) -> None:
        self.machine = machine
        self.look = Look()
        self.state: dict[str, Panel] = {}
        self.lock = threading.RLock()
        self._views: weakref.WeakSet[Viewer] = weakref.WeakSet()
        self._now = driver.capture(machine)
        self._history = History()
        self._history.move(self._now.sequence, driver.facts(machine, 0))
        self._before: Moment | None = None
        self._run: threading.Thread | None = None
        self._progress: Progress | None = None
        self._error: Failure | None = None
        self._lines: list[str] = []
        self._answered = 0
        self._entries: dict[str, str] = {}
        self._moving = False
        self._shown = 0.0
        self._later: threading.Timer | None = None
        self._forget = driver.listen(machine, self._moved)
        self._publish()

    # ---- views

    def attach(self, view: Viewer) -> None:
        with self.lock:
            self._views.add(view)

    # ---- requests

    def ask(self, verb: str, detail: Mapping[str, Any], number: int = 0) -> None:
        """Does what a click or a key asked for, and tells every view.

        Parameters
        ----------
        verb : str
            One of :data:`kvmlab.widgets.driver.VERBS`.
        detail : mapping
            By verb.
        number : int
            The view's own number of the request; comes back in the panel ``bench`` once it is done.
        """
        action = driver.VERBS.get(verb)
        with self.lock:
            if self._run is not None:
                if verb == "stop":
                    driver.stop(self.machine)
                self._answered = number
                return
            self._error = None
            if action is None or (self.machine is None and not action.always):
                self._error = Failure("Not possible", f"Nothing here answers to {verb!r}.")
                self._finish(number)
                return
            if not action.moves:
                self._look(action, detail, number)
                return
            try:
                detail = driver.resolve(verb, detail, self._history)
            except BadArgument as error:
                self._error = failure(error)
                self._finish(number)
                return
            thread = threading.Thread(target=self._work, args=(action, detail, number), name=f"kvmlab {verb}",
                                      daemon=True)
            self._run = thread
        thread.start()
        thread.join(WAIT_S)
        if thread.is_alive():
            threading.Thread(target=self._watch, args=(thread, action), name="kvmlab progress", daemon=True).start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits for a run that goes on in the background; True once it is over."""
        run = self._run
        if run is not None and run is not threading.current_thread():
            run.join(timeout_s)
        return self._run is None

    def refresh(self) -> None:
        """Shows the machine as it is now, after it was moved by something that does not tell."""
        with self.lock:
            if self._run is None:
                self._shift()
                self._publish()

    # ---- inside

    def _look(self, action: driver.Verb, detail: Mapping[str, Any], number: int) -> None:
        """A request that moves no time: what was before stays what marks compare with."""
        self._note(action, detail)
        try:
            self._moving = True
            replaced = action.do(self.machine, self.look, detail)
            if replaced is not None:
                self._forget()
                self.machine = replaced
                self._history = History()
                self._forget = driver.listen(replaced, self._moved)
                self._before = None
            if action.edits:
                self._now = driver.capture(self.machine)
        except Exception as error:  # whatever it is, the person who clicked has to see it
            self._error = failure(error)
        finally:
            self._moving = False
        self._finish(number)

    def _work(self, action: driver.Verb, detail: Mapping[str, Any], number: int) -> None:
        failed: Failure | None = None
        self._note(action, detail)
        self._moving = True
        try:
            action.do(self.machine, self.look, detail)
        except BaseException as error:
            failed = failure(error)
        with self.lock:
            self._moving = False
            self._run = None
            self._progress = None
            self._error = failed
            try:
                self._shift()
            except Exception as error:
                self._error = failure(error)
            self._finish(number)

    def _watch(self, thread: threading.Thread, action: driver.Verb) -> None:
        """Tells the views how far a long run is, until it is over."""
        start = time.monotonic()
        first = driver.progress_of(self.machine)
        while thread.is_alive():
            with self.lock:
                if self._run is not thread:
                    return
                now = driver.progress_of(self.machine)
                self._progress = Progress(action.says, first, now, time.monotonic() - start)
                self._publish(only=("toolbar",))
            thread.join(TICK_S)

    def _moved(self, *_: Any) -> None:
        """The machine was moved by somebody else, a cell for instance; perhaps a million times in a row."""
        if self._moving:
            return
        with self.lock:
            if self._later is not None:
                return
            if time.monotonic() - self._shown < OTHERS_S:
                self._wake()
            else:
                self._show()

    def _wake(self) -> None:
        self._later = threading.Timer(OTHERS_S, self._late)
        self._later.daemon = True
        self._later.start()

    def _late(self) -> None:
        with self.lock:
            self._later = None
            if self._run is None and not self._moving:
                try:
                    self._show()
                except Busy:  # a cell runs it at this moment; it will tell again, but perhaps only much later
                    self._wake()

    def _show(self) -> None:
        if self._run is None and not self._moving:
            self._error = None
            self._shift()
            self._publish()

    def _shift(self) -> None:
        """The stop shown so far becomes the one that marks compare with."""
        now = driver.capture(self.machine)
        if now.position is None or now.position != self._now.position:
            self._before = self._now
            self._entries = {content["at"]: content["entry"] for key, content in self.state["paging"].items
                             if key.startswith("step:")}
        self._now = now
        self._history.gap |= driver.lost(self.machine, self._history.at)
        self._history.move(now.sequence, driver.facts(self.machine, self._history.at))

    def _note(self, action: driver.Verb, detail: Mapping[str, Any]) -> None:
        line = action.python(detail)
        if line:
            self._lines = [*self._lines[-11:], line]

    def _finish(self, number: int) -> None:
        self._answered = max(self._answered, number)
        self._publish()

    def _publish(self, only: tuple[str, ...] = ()) -> None:
        """Works out what every panel shows, and sends what differs from what was sent before."""
        with self.lock:
            scene = Scene(self.machine, self._now, self._before, self.look, self._progress, self._error,
                                tuple(self._lines), self._answered, self._history, self._entries)
            made = model.draw(scene, only)
            state = {**self.state, **made} if only else made
            delta = diff(self.state, state)
            self.state = state
            self._shown = time.monotonic()
            if delta:
                for view in list(self._views):
                    view.deliver(delta, state)


# A session holds its machine, so the machine must not be held by this table: it holds the session itself, as observer.
_sessions: weakref.WeakKeyDictionary[Any, weakref.ref[Session]] = weakref.WeakKeyDictionary()
_sessions_lock = threading.Lock()


def session_of(machine: Any) -> Session:
    """The one session of this machine; every bench and every panel of it share it."""
    with _sessions_lock:
        known = _sessions.get(machine)
        session = known() if known is not None else None
        if session is None:
            session = Session(machine)
            _sessions[machine] = weakref.ref(session)
        return session


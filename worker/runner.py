"""The runner: the child process in which engines live. Does one attempt at a time for its agent.

It must never outlive the agent: the kernel kills it when the agent's process dies, and the closed socket
tells it the same on systems without that. It is ended by SIGKILL only; a signal that is meant for a whole
group of processes (ctrl-c, a service manager's SIGTERM) is the agent's to answer, by draining.
"""

# ruff: noqa: E402

from __future__ import annotations

import gc

_had_been_enabled = gc.isenabled()
gc.disable()  # as in worker/cli.py

import argparse
import ctypes
import faulthandler
import io
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lcq.errors import ProtocolError
from lcq.loading import for_good
from lcq.models import ErrorClass, Failure
from worker.memory import forget_peak, peak_mib, rss_mib
from worker.protocol import (
    Cancel,
    Cancelled,
    Done,
    Failed,
    Progress,
    Ready,
    Release,
    Run,
    Setup,
    Stop,
    Word,
    pack_word,
    words_from,
)
from worker.warden import LOOSE

if TYPE_CHECKING:
    from worker.engines.shelf import Shelf

if _had_been_enabled:
    gc.freeze()
    gc.enable()

_log = logging.getLogger(__name__)
_PR_SET_PDEATHSIG = 1
_PROGRESS_S = 0.2  # an engine may tell a thousand steps a second: nobody can watch more than a few
_LONGEST_MESSAGE = 2000
_MOST_STAGES, _LONGEST_STAGE = 32, 40
_IOLBF = 1  # stdio.h: a line is written as soon as it is whole


def die_with(parent: int) -> None:
    """Have the kernel kill this process when process ``parent``, its parent, dies. On Linux only."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)  # it died before we were on its leash


def write_at_once() -> None:
    """Have what is printed leave this process line by line, also by C code: what a crash finds in a buffer is lost."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _IOLBF, 0)
    faulthandler.enable()  # a segmentation fault tells where it was


def _flush() -> None:
    """See to it that what an attempt wrote is out before its end is told."""
    sys.stdout.flush()
    if sys.platform == "linux":
        ctypes.CDLL(None).fflush(None)


class Runner:
    """Answers the words that come in by ``line`` with the work of its engines."""

    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._words: queue.SimpleQueue[Word] = queue.SimpleQueue()
        # Attempts are counted as they are heard and as they are begun, so that a cancel that comes after the
        # end of one can never be taken for the next one's.
        self._heard = 0
        self._begun = 0
        self._cancelled = 0  # this one, and all before it
        self._stages: list[tuple[str, int]] = []  # of the attempt that is done, and when each began
        threading.Thread(target=self._listen, name="agent's words", daemon=True).start()

    def _listen(self) -> None:
        """Hear the agent also while an engine works: a closed line ends the process at once."""
        try:
            for word in words_from(self._line):
                if isinstance(word, Cancel):
                    self._cancelled = self._heard
                    continue
                if isinstance(word, Run):
                    self._heard += 1
                self._words.put(word)
        except (OSError, ProtocolError) as error:
            _log.error("the agent's line broke: %s", error)
        os._exit(1)  # the agent is gone; an engine deep in foreign code hears no gentler word

    def _send(self, word: Word) -> None:
        self._line.sendall(pack_word(word))

    def serve(self) -> None:
        """Set up as told, and work until told to stop."""
        setup = self._words.get()
        if not isinstance(setup, Setup):
            raise ProtocolError(f"an agent's first word to its runner is 'setup', not {setup.WORD!r}")
        with for_good():
            from worker.engines.registry import make_engines  # cv2 and torch: only once we are on the leash
            from worker.engines.selftest import self_test
            from worker.engines.shelf import Shelf

            engines, left_out = make_engines(setup.settings)
        shelf = Shelf(engines, setup.settings)
        failed = self_test(shelf, setup.settings) if setup.self_test else {}
        while True:
            self._send(_ready(shelf, left_out, failed))
            while isinstance(word := self._words.get(), Run):
                self._send(self._run(word, shelf))
            match word:
                case Release():
                    shelf.release()
                case Stop():
                    return
                case other:
                    raise ProtocolError(f"an agent does not say {other.WORD!r} to its runner")

    def _run(self, run: Run, shelf: Shelf) -> Done | Failed | Cancelled:
        """One attempt, and what it leaves this process holding."""
        forget_peak()
        shelf.begin_peak()
        ended = self._attempt(run, shelf)
        _flush()
        return ended.model_copy(
            update={
                "warm": tuple(shelf.warm),
                "held_mib": shelf.held_mib(),
                "peak_mib": peak_mib(),
                "device_peak_mib": shelf.peak_mib(),
                "rss_mib": rss_mib(),
                "answered": shelf.answered(),
                **({} if isinstance(ended, Cancelled) else {"stages": tuple(self._stages)}),
            }
        )

    def _attempt(self, run: Run, shelf: Shelf) -> Done | Failed | Cancelled:
        from worker.engines import base
        from worker.engines.work import AttemptFailed, run_task

        self._begun += 1
        number = self._begun
        told_at = 0.0
        stages = self._stages = []

        def progress(fraction: float, stage: str) -> None:
            nonlocal told_at
            if len(stages) < _MOST_STAGES and (not stages or stages[-1][0] != stage):
                stages.append((stage[:_LONGEST_STAGE], time.time_ns()))
            if self._cancelled >= number:
                raise base.Cancelled
            now = time.monotonic()
            if now - told_at >= _PROGRESS_S:
                told_at = now
                self._send(Progress(fraction=min(1.0, max(0.0, fraction)), stage=stage))

        try:
            finished = run_task(
                run.task,
                attempt=run.attempt,
                shelf=shelf,
                limits=run.limits,
                progress=progress,
                eased=run.eased,
                also=run.also,
                call=run.call,
            )
        except AttemptFailed as end:
            return Failed(failure=end.failure, again_s=end.again_s, cost=end.cost)
        except Exception as error:  # noqa: BLE001 - the edge: an engine's bug is this attempt's end, not ours
            if isinstance(error, base.Cancelled) and self._cancelled >= number:
                return Cancelled()
            _log.exception("task %s, attempt %d: the engine broke", run.task.id, run.attempt)
            message = f"the engine for {run.task.model} broke: {type(error).__name__}: {error}"
            failure = Failure(error_class=ErrorClass.CRASH, code="engine_error", message=_one_line(message))
            return Failed(failure=failure)
        return Done(result=finished.result, staged=finished.staged, found=finished.found)


def _ready(shelf: Shelf, left_out: dict[str, str], failed: dict[str, str]) -> Ready:
    """What ``shelf`` offers, without the models and engines that have ``failed`` their test."""
    offers = {
        model: offer for model, offer in shelf.offers.items() if model not in failed and offer.engine not in failed
    }
    return Ready(
        offers=offers,
        left_out={**left_out, **shelf.left_out},
        failed=failed,
        warm=tuple(shelf.warm),
        held_mib=shelf.held_mib(),
        loose=os.environ.get(LOOSE, ""),
    )


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return "".join(char for char in line if char.isprintable())[:_LONGEST_MESSAGE]


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve the agent at the other end of socket ``--fd`` until it says stop or is gone."""
    parser = argparse.ArgumentParser(prog="worker.runner", description="Started by lcq-agent, not by hand.")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    die_with(options.parent)
    write_at_once()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")  # the agent knows when, and whose attempt it is
    os.set_inheritable(options.fd, False)  # a child of an engine must not hold our line open
    Runner(socket.socket(fileno=options.fd)).serve()
    gc.freeze()  # the process ends: there is no need to look for garbage in all there is


if __name__ == "__main__":
    main()

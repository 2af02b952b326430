"""A process that has imported everything and forks a driver on request: 50 kills without 50 times the imports.

One JSON line in, `{"argv": [...], "env": {...}, "log": path}`, gives one line out, `{"pid": ...}`; when that process
ends, another, `{"ended": pid, "status": ...}` (minus the signal that killed it). Ends when its stdin does.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import Any


def main() -> None:
    import ray.tune  # noqa: F401

    import gemma_nli.console
    import gemma_nli.sweep.engine  # noqa: F401

    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    _say({"ready": True})
    while True:
        ready, _, _ = select.select([0, woken], [], [])
        if woken in ready:
            os.read(woken, 512)
            _reap()
        if 0 in ready:
            line = sys.stdin.buffer.raw.readline()  # type: ignore[attr-defined]
            if not line:
                return
            _start(json.loads(line))


def _start(order: dict[str, Any]) -> None:
    pid = os.fork()
    if pid:
        _say({"pid": pid})
        return
    status = 70
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.closerange(3, 200)
        os.environ.update(order["env"])
        sys.argv = ["gemma-nli", *order["argv"]]
        from gemma_nli.cli import main as command

        command()
        status = 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except BaseException:  # noqa: BLE001 - a forked child must never return into its parent's loop
        import traceback

        traceback.print_exc()
    finally:
        import atexit

        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not pid:
            return
        _say({"ended": pid, "status": os.waitstatus_to_exitcode(status)})


def _say(fact: dict[str, Any]) -> None:
    os.write(1, json.dumps(fact).encode() + b"\n")


if __name__ == "__main__":
    main()

"""A child process that dies with its parent, and a folder that only one of them may use."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from eventbus.errors import ServerStartError

__all__ = ("Process", "lock_folder", "spawn")

# Runs before nats-server, in the process that becomes it. `preexec_fn` would do the same without
# the ~15 ms of this interpreter, but Python warns about it (3.12) wherever a thread exists.
# 1 is PR_SET_PDEATHSIG; 9 because a paused server would sleep through anything milder.
_DIE_WITH_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Process:
    """One process, and the sign that it has ended."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.popen = popen
        self.ended = threading.Event()

    def pause(self) -> None:
        """Stop it, and wait until it has: its threads run on for a moment after the signal."""
        self.popen.send_signal(signal.SIGSTOP)
        if sys.platform == "linux":  # macOS has no waitid
            with suppress(ChildProcessError):  # it has ended
                os.waitid(os.P_PID, self.popen.pid, os.WSTOPPED | os.WNOWAIT)


def spawn(command: Sequence[str], *, log: Path, lock: int) -> Process:
    """Start a process from a thread of its own, which then waits for its end.

    Linux kills the child when the *thread* that started it ends, so that thread has to stay.
    """
    handover: Future[Process] = Future()

    def own() -> None:
        try:
            with log.open("ab") as output:
                popen = subprocess.Popen(  # noqa: S603 - the user's own choice of binary
                    _dying_with_parent(command),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    pass_fds=(lock,),  # locked as long as the server lives, not only its owner
                    process_group=0,  # a Ctrl-C is for the owner, who then stops the server
                )
        except OSError as exc:
            handover.set_exception(ServerStartError(f"'{command[0]}' doesn't run: {exc}"))
            return
        process = Process(popen)
        handover.set_result(process)
        popen.wait()
        process.ended.set()

    threading.Thread(target=own, name="nats-server", daemon=True).start()
    return handover.result()


def _dying_with_parent(command: Sequence[str]) -> list[str]:
    if sys.platform != "linux" or not sys.executable:
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *command]


def lock_folder(store: Path) -> int:
    """Lock a folder against a second server; nats-server itself would share and corrupt it."""
    lock = os.open(store / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise ServerStartError(
            f"folder '{store}' is in use by another nats-server (started by process {holder}); "
            "stop it, or choose another folder"
        ) from exc
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock

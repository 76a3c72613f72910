"""Starts processes and ends every one of them when it ends itself, however that comes about.

It ends on SIGTERM, SIGINT or SIGHUP, when its parent is gone, when one of its processes ends, and, where standard
input is a pipe or a socket, when the other side closes it: a test that is killed outright takes its cluster along.
A line `restart NAME` there has that process killed and started anew.
Should the supervisor itself be killed outright, the kernel kills its processes (PR_SET_PDEATHSIG).
"""

import ctypes
import os
import select
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
POLL_SECONDS = 0.05
TAIL_LINES = 15
_libc = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """What went wrong and how to mend it, for a person to read."""


class Stopped(Exception):
    """Told to end."""


class Supervisor:
    """The processes of one cluster and their log files."""

    def __init__(self, logs):
        self.logs = Path(logs)
        self.processes = {}
        self._started = {}
        self._parent = os.getppid()
        self._signalled = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._wake_write)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            mode = os.fstat(0).st_mode
            self._watch_stdin = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
        except OSError:
            self._watch_stdin = False

    def _on_signal(self, _number, _frame):
        self._signalled = True

    def log(self, name):
        """The log file of a process."""
        return self.logs / f"{name}.log"

    def start(self, name, argv, **options):
        """Starts a process whose output goes to its log; `options` are Popen's."""
        supervisor = os.getpid()
        self._started[name] = (argv, dict(options))

        def die_with_supervisor():
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != supervisor:
                os.kill(os.getpid(), signal.SIGKILL)

        options.setdefault("stdin", subprocess.DEVNULL)
        with open(self.log(name), "ab") as log:
            options.setdefault("stdout", log)
            options.setdefault("stderr", log)
            # A session of its own: Ctrl-C in a terminal is for the supervisor, which then ends them in order.
            process = subprocess.Popen(argv, start_new_session=True, preexec_fn=die_with_supervisor, **options)
        self.processes[name] = process
        return process

    def wait_until(self, what, condition, seconds, name=None):
        """Returns the first true value of `condition`; fails after `seconds`, with the log of process `name`."""
        deadline = time.monotonic() + seconds
        while True:
            self._check()
            value = condition()
            if value:
                return value
            if time.monotonic() > deadline:
                raise Failed(f"{what} not seen within {seconds} s{self.tail(name) if name else ''}")
            self._sleep(POLL_SECONDS)

    def run(self):
        """Blocks until told to end, or fails as soon as a process ends."""
        while True:
            self._check()
            self._sleep(1)

    def restart(self, name):
        """Kills a process, and starts it again as it was."""
        argv, options = self._started[name]
        self.processes[name].kill()
        self.processes[name].wait()
        self.start(name, argv, **options)

    def kill_all(self):
        """Kills and reaps everything, newest first. Nothing of a cluster is worth a graceful end."""
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.kill()
        for process in self.processes.values():
            process.wait()
        self.processes.clear()

    def tail(self, name):
        """The end of a process's log with its path, to be appended to a message."""
        path = self.log(name)
        try:
            lines = path.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        except OSError:
            lines = []
        body = "".join(f"\n  | {line}" for line in lines)
        return f"\nend of {path}:{body or ' (empty)'}"

    def _check(self):
        if self._signalled or os.getppid() != self._parent or self._told_to_end():
            raise Stopped
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise Failed(f"{name} ended with status {process.returncode}{self.tail(name)}")

    def _told_to_end(self):
        while self._watch_stdin and select.select([0], [], [], 0)[0]:
            told = os.read(0, 4096)
            if not told:
                return True
            for line in told.decode(errors="replace").splitlines():
                verb, _, name = line.partition(" ")
                if verb == "restart" and name in self._started:
                    self.restart(name)
        return False

    def _sleep(self, seconds):
        sentinels = [os.pidfd_open(process.pid) for process in self.processes.values() if process.poll() is None]
        watched = [self._wake_read, *sentinels, *([0] if self._watch_stdin else [])]
        try:
            select.select(watched, [], [], seconds)
        finally:
            for sentinel in sentinels:
                os.close(sentinel)


def supervise(logs, body):
    """Runs `body(supervisor)` as a program: exit status 0 when told to end, 1 with a message when it failed."""
    supervisor = Supervisor(logs)
    try:
        body(supervisor)
        status = 0
    except Stopped:
        status = 0
    except (Failed, OSError) as failure:
        print(f"cluster: {failure}", file=sys.stderr, flush=True)
        status = 1
    finally:
        supervisor.kill_all()
    return status

"""A real PostgreSQL for a test: made in a temporary folder, started, and gone afterwards."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

USER, PASSWORD = "focal", "s3cr:et"  # a colon and more: addresses must cope


class PostgresServer:
    """A server of its own on a free port of this machine; a context manager.

    Raises:
        FileNotFoundError: PostgreSQL is not installed (Debian: apt-get install postgresql).
    """

    def __init__(self) -> None:
        self._bin = find_binaries()
        self.folder = Path(tempfile.mkdtemp(prefix="focal-lab-postgres-"))
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        # PostgreSQL refuses to run as root
        self._as: dict[str, str] = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        if self._as:
            shutil.chown(self.folder, "postgres", "postgres")

    @property
    def url(self) -> str:
        """The address, password included."""
        return f"postgresql://{USER}:{PASSWORD.replace(':', '%3A')}@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        secret = self.folder / "password"
        secret.write_text(PASSWORD, encoding="utf-8")
        secret.chmod(0o644)
        command = [self._bin / "initdb", "-D", self.folder / "data", "-U", USER]
        command += ["-A", "scram-sha-256", "--pwfile", secret, "-E", "UTF8", "--locale", "C"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=self.folder, **self._as)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [self._bin / "postgres", "-D", self.folder / "data", "-p", str(self.port)]
        command += ["-k", self.folder, "-c", "listen_addresses=127.0.0.1"]
        with open(self.folder / "log.txt", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self._as)
        for _ in range(300):
            if self._answers():
                return
            time.sleep(0.1)
        raise RuntimeError((self.folder / "log.txt").read_text(encoding="utf-8")[-2000:])

    def stop(self) -> None:
        """Cut all connections and end the server."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
            self._process = None

    def pause(self) -> None:
        """Let it hang: connections stay, and nobody answers."""
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on where it was."""
        self._signal_all(signal.SIGCONT)

    def _signal_all(self, number: signal.Signals) -> None:
        assert self._process is not None, "the server is not running"
        first = self._process.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text(encoding="ascii").split()
        for process in [first, *map(int, children)]:
            with suppress(ProcessLookupError):
                os.kill(process, number)

    def _answers(self) -> bool:
        ready = [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(ready, check=False).returncode == 0


def find_binaries() -> Path:
    """Where `initdb` and `postgres` are; Debian keeps them out of the PATH.

    Raises:
        FileNotFoundError: nowhere.
    """
    folders = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise FileNotFoundError("PostgreSQL is not installed (Debian: apt-get install postgresql)")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""Storage of the queue: a journal file beside the runs, or a PostgreSQL database that machines share."""

import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from focal_lab.command_line import without_password
from focal_lab.errors import UserError
from focal_lab.utils.file_lock import FileLock

JOURNAL = "queue.journal"
# Seconds without a heartbeat after which a machine is considered dead. A database that is down for a minute
# must not cost anybody a run.
GRACE = 180.0
_HEARTBEATS = 10  # per grace period
# Most seconds that a database, or the network to it, may take to answer.
_ANSWER_SECONDS = 10.0
_MOST_CLOCK_DIFFERENCE = 30.0


def check_url(url: str) -> str:
    """A database URL, with the driver that we install.

    Raises:
        UserError: not the URL of a PostgreSQL database; the message never has the password.
    """
    scheme, separator, rest = url.partition("://")
    kind = scheme.partition("+")[0]
    if kind == "sqlite":
        raise UserError(
            "SQLite hands out runs twice to parallel workers; leave --storage out on one machine "
            "(a journal file in --out is used), and use postgresql://USER@HOST/DATABASE for several",
            key="--storage",
        )
    if kind not in ("postgresql", "postgres") or not separator or not rest.strip("/"):
        raise UserError(
            f"{without_password(url)!r} is not the URL of a PostgreSQL database "
            "(postgresql://USER@HOST/DATABASE)",
            key="--storage",
        )
    return f"postgresql+psycopg://{rest}"


def open_storage(out: Path, url: str | None, grace: float = GRACE) -> BaseStorage:
    """Open the storage that a command line asks for.

    Args:
        out: folder of the runs, which has the journal.
        url: of a PostgreSQL database; None for the journal.
        grace: seconds, see GRACE.

    Raises:
        UserError: the database cannot be used; the message never has the password.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with")
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if url is not None:
        return _open_database(url, grace)
    journal = out / JOURNAL
    out.mkdir(parents=True, exist_ok=True)
    if journal.is_dir():
        raise UserError(
            "is a folder, but the queue is a file of that name; move the folder away", file=journal
        )
    backend: BaseJournalBackend = JournalFileBackend(str(journal), lock_obj=_JournalLock(journal))  # type: ignore[arg-type]
    try:
        storage = JournalStorage(backend)
        storage.get_all_studies()
        # Optuna reports a last line that it cannot read only when the next one is written
        with open(journal, "rb") as stream:
            first = stream.readline()
        if first.endswith(b"\n"):
            json.loads(first)["op_code"]
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise UserError(
            "is not an Optuna journal; move it away, and the sweep creates a new one", file=journal
        ) from error
    return storage


def clock_difference(storage: BaseStorage | None) -> float | None:
    """Seconds that this machine's clock is ahead of a database's; None if they agree well enough."""
    if not isinstance(storage, RDBStorage):
        return None
    import sqlalchemy
    import sqlalchemy.exc

    before = time.time()
    try:
        with storage.engine.connect() as connection:
            there = float(
                connection.execute(sqlalchemy.text("select extract(epoch from now())")).scalar_one()
            )
    except sqlalchemy.exc.SQLAlchemyError:
        return None  # it has just gone down
    difference = (before + time.time()) / 2 - there
    return difference if abs(difference) > _MOST_CLOCK_DIFFERENCE else None


def database_of(study: optuna.Study) -> RDBStorage | None:
    """The database of a study, which Optuna puts a cache before; None for a journal."""
    backend = getattr(study._storage, "_backend", None)
    return backend if isinstance(backend, RDBStorage) else None


def unreachable(error: BaseException) -> bool:
    """Whether an error means that the database did not respond, which may be temporary."""
    if isinstance(error, StorageInternalError):
        return True
    import sqlalchemy.exc

    return isinstance(error, sqlalchemy.exc.DBAPIError | sqlalchemy.exc.TimeoutError)


def _open_database(url: str, grace: float) -> RDBStorage:
    checked, shown = check_url(url), without_password(url)
    try:
        import psycopg  # noqa: F401
        import sqlalchemy.exc
    except ImportError as error:
        raise UserError(
            "needs psycopg: pip install 'focal-lab[postgres]'", key=f"--storage {shown}"
        ) from error
    options: dict[str, Any] = {
        "pool_pre_ping": True,  # reopens a connection that broke while it was idle
        "connect_args": _timeouts(grace),
    }
    try:
        return RDBStorage(
            checked,
            engine_kwargs=options,
            heartbeat_interval=max(1, round(grace / _HEARTBEATS)),
            grace_period=max(2, round(grace)),
        )
    except sqlalchemy.exc.ArgumentError as error:
        raise UserError("is not the URL of a database", key=f"--storage {shown}") from error
    except (sqlalchemy.exc.SQLAlchemyError, UnicodeError, OSError) as error:
        raise UserError(unreachable_why(error), key=f"--storage {shown}") from error
    except ValueError as error:  # what stands for the port, which may be a part of the password
        raise UserError(
            "is not the URL of a database: its port is not a number "
            "(a password's : / @ are written %3A %2F %40)",
            key=f"--storage {shown}",
        ) from error
    except RuntimeError as error:  # optuna's check of its tables
        raise UserError(
            "its tables were created by another version of Optuna "
            f"(this is {optuna.__version__}): use that version on all machines, or a new database, "
            "or 'optuna storage upgrade'",
            key=f"--storage {shown}",
        ) from error


def _timeouts(grace: float) -> dict[str, int]:
    """How long libpq waits for a network that drops everything; TCP alone tries for a quarter of an hour.

    A small share of the grace period: a machine that is cut off must notice before others take its runs.
    """
    seconds = max(2, round(min(_ANSWER_SECONDS, grace / 8)))
    return {
        "connect_timeout": seconds,
        "tcp_user_timeout": 1000 * seconds,
        "keepalives_idle": seconds,
        "keepalives_interval": seconds,
    }


def unreachable_why(error: BaseException) -> str:
    """The database's error message in one line, without passwords."""
    cause = error.__cause__ if isinstance(error, StorageInternalError) and error.__cause__ else error
    message = " ".join(str(getattr(cause, "orig", None) or cause).split())
    return (
        f"cannot be used: {without_password(message)[:300]} (is it running, and are user and password right?)"
    )


class _JournalLock(FileLock):
    """A lock that is free as soon as its holder is killed; Optuna's own lock files are not for 30 s.

    Acquiring it cuts off the half-written line of a process that was killed while it wrote, which would make
    everything after it unreadable.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(journal.with_name(f"{journal.name}.lock"))
        self.journal = journal

    def acquire(self, *, wait: bool = True, shared: bool = False) -> bool:
        held = super().acquire(wait=wait, shared=shared)
        with open(self.journal, "rb+") as stream:
            size = stream.seek(0, os.SEEK_END)
            if size:
                stream.seek(size - 1)
                if stream.read(1) != b"\n":
                    stream.seek(0)
                    stream.truncate(stream.read().rfind(b"\n") + 1)
        return held

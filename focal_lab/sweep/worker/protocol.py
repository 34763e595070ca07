"""Request that a command sends to the worker process of a run. Imports no torch: the command needs none."""

from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from typing import Any


@dataclass(frozen=True)
class TrainRequest:
    """What a worker process needs besides the configuration, which it reads from the run's `config.yaml`.

    Attributes:
        folder: the run's.
        identity: what the run ID is a hash of.
        git: state of the code when the run was claimed.
        threads: CPU threads that torch may use.
        devices: GPUs of the process, as CUDA_VISIBLE_DEVICES names them; None leaves that to the
            configuration.
        rank, ranks, port: which process of how many this is, and where they meet.
        lock: the run's lock, which the process holds until it exits.
    """

    folder: str
    identity: dict[str, Any]
    git: dict[str, Any]
    threads: int
    devices: str | None = None
    rank: int = 0
    ranks: int = 1
    port: int = 0
    lock: "SharedLock | None" = None


class SharedLock:
    """A file lock that a worker process keeps when the process that acquired it has exited."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def __reduce__(self) -> tuple[Any, ...]:
        return _inherit_lock, (DupFd(self.descriptor),)


def _inherit_lock(duplicate: Any) -> SharedLock:
    return SharedLock(duplicate.detach())

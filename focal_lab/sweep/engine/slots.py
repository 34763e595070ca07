"""Where runs are trained: how many at a time, with which GPUs and how many threads."""

from collections.abc import Iterable
from dataclasses import dataclass

from focal_lab.errors import UserError
from focal_lab.sweep.engine.hardware import chosen_threads, cores, visible_devices
from focal_lab.sweep.plan.runs import Run


@dataclass(frozen=True)
class Places:
    """The places of one command.

    Attributes:
        count: runs at a time.
        threads: CPU threads of each process.
        names: the GPUs of this machine as CUDA_VISIBLE_DEVICES names them; none on a CPU.
        each: devices that a place has.
    """

    count: int
    threads: int
    names: tuple[str, ...] = ()
    each: int = 1

    def __str__(self) -> str:
        if self.names:
            each = f"{self.each} {'GPU' if self.each == 1 else 'GPUs'}"
        else:
            each = f"{self.threads} {'thread' if self.threads == 1 else 'threads'}"
        return f"{self.count} at a time with {each} each"

    def devices(self, slot: int, run: Run) -> str | None:
        """The GPUs of a run in that place; None on a CPU."""
        if not self.names:
            return None
        # whole groups only: of three GPUs, runs on two each share the first two
        first = slot % (len(self.names) // self.each) * self.each
        return ",".join(self.names[first : first + self.ranks(run)])

    @staticmethod
    def ranks(run: Run) -> int:
        """Processes of a run: one a device that its configuration asks for."""
        return devices_asked(run)


def devices_asked(run: Run) -> int:
    """How many devices a run's configuration trains on; `auto` is one."""
    asked = run.config.get("trainer", {}).get("devices", 1)
    return asked if isinstance(asked, int) and not isinstance(asked, bool) and asked > 0 else 1


def find_places(runs: Iterable[Run], gpus: int, workers: int | None, total: int) -> Places:
    """One run a group of devices, or on a CPU one for each core up to four: small models gain nothing from
    more threads.

    Args:
        runs: what is to be trained.
        gpus: how many torch sees here.
        workers: how many the user wants at a time; None for as many as fit.
        total: how many runs there are.

    Raises:
        UserError: a run needs more devices than this machine has.
    """
    each = max((devices_asked(run) for run in runs), default=1)
    there = gpus or cores()
    if each > there:
        what = f"{gpus} GPUs" if gpus else f"{there} CPU cores and no GPU"
        raise UserError(
            f"a run is configured for {each} devices, this machine has {what}; "
            f"use --devices-per-run {there} or fewer (the batch is smaller then)",
            key="trainer.devices",
        )
    fitting = gpus // each if gpus else max(1, min(4, there // each))
    count = max(1, min(workers or fitting, total))
    threads = max(1, cores() // (count * each))
    return Places(count, min(threads, chosen_threads() or threads), tuple(visible_devices(gpus)), each)

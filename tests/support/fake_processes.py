"""Worker processes that answer a plan's requests at once, without torch."""

from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from focal_lab.sweep.worker.request import (
    CheckAnswer,
    CheckRequest,
    Cost,
    MachineSpecs,
    MeasureRequest,
    StepTimes,
)

MACHINE = MachineSpecs("2 x Abacus", "2.0", 0, 8000.0, None)
MEASURED = StepTimes(
    start_up=5.0,
    batch=0.1,
    batches=100.0,
    accumulated=1,
    validation=1.0,
    val_batches=10.0,
    validations=1.0,
    test=2.0,
    memory_mb=700.0,
)


class FakeProcess:
    """One that has sent all its messages."""

    exitcode = -9

    def kill(self) -> None:
        """Nothing to kill."""

    def join(self, timeout: float | None = None) -> None:
        """Nothing to wait for."""


class FakeProcesses:
    """Answers every request, and keeps it.

    Args:
        wrong: number of a configuration -> what is wrong with it.
        failed: why nothing can be measured.
        absent: number of a configuration -> which of its data is not here.
        crashes: whether a measuring process exits without a message.
    """

    def __init__(
        self,
        wrong: dict[int, str] | None = None,
        failed: str | None = None,
        *,
        crashes: bool = False,
        absent: dict[int, str] | None = None,
    ) -> None:
        self.wrong, self.failed, self.crashes, self.absent = wrong or {}, failed, crashes, absent or {}
        self.checks: list[CheckRequest] = []
        self.measured: list[MeasureRequest] = []

    def check(self, request: CheckRequest) -> CheckAnswer:
        """As `WarmProcesses.check`."""
        self.checks.append(request)
        costs = {number: Cost(1_000_000 + number, 0.5, (28, 28), "options") for number in request.counted}
        return CheckAnswer(MACHINE, costs, self.absent, next(iter(self.wrong.items()), None))

    def measure(self, request: MeasureRequest) -> tuple[Any, Connection]:
        """As `WarmProcesses.measure`."""
        self.measured.append(request)
        receiver, sender = Pipe()
        if not self.crashes:
            sender.send(self.failed or MEASURED)
        sender.close()
        return FakeProcess(), receiver

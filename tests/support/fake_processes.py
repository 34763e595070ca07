"""Worker processes that answer a plan's requests at once, without torch."""

from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from focal_lab.sweep.worker.request import CheckRequest, MachineSpecs, MeasureRequest, StepTimes

MACHINE = MachineSpecs("2 x Abacus", "2.0", 0, 8000.0, None)
MEASURED = StepTimes(
    start_up=5.0,
    batch=0.1,
    batches=100.0,
    accumulated=1,
    val_batch=0.05,
    val_batches=10.0,
    epoch_end=0.5,
    validations=1.0,
    test=1.0,
    test_batch=0.05,
    test_batches=20.0,
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

    def check(self, request: CheckRequest) -> tuple[Any, Connection]:
        """As `WarmProcesses.check`."""
        self.checks.append(request)
        counted = [
            ("counted", (number, 1_000_000 + number, 0.5, (28, 28), "options"))
            for number in sorted(request.counted)
        ]
        wrong = [("wrong", pair) for pair in self.wrong.items()]
        absent = [("absent", pair) for pair in self.absent.items()]
        return _sent([("machine", MACHINE), *counted, *absent, *wrong, ("checked", None)])

    def measure(self, request: MeasureRequest) -> tuple[Any, Connection]:
        """As `WarmProcesses.measure`."""
        self.measured.append(request)
        if self.crashes:
            return _sent([])
        return _sent([("failed", self.failed)] if self.failed else [("measured", MEASURED)])


def _sent(messages: list[tuple[str, Any]]) -> tuple[FakeProcess, Connection]:
    receiver, sender = Pipe()
    for message in messages:
        sender.send(message)
    sender.close()
    return FakeProcess(), receiver

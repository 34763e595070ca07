"""Processes that answer a plan's questions at once, without torch."""

from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from focal_lab.sweep.worker.survey import Check, MachineSpecs, Measure, StepTimes

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
    """One that has said all it has to say."""

    exitcode = -9

    def kill(self) -> None:
        """Nothing to kill."""

    def join(self, timeout: float | None = None) -> None:
        """Nothing to wait for."""


class FakeProcesses:
    """Answers every order; keeps them.

    Args:
        wrong: number of a configuration -> what is wrong with it.
        failed: why nothing can be measured.
        absent: number of a configuration -> which of its data is not here.
        dies: whether a measuring process dies without a word.

    Attributes:
        slowness: what every step takes longer than on a quiet machine.
    """

    slowness = 1.0

    def __init__(
        self,
        wrong: dict[int, str] | None = None,
        failed: str | None = None,
        *,
        dies: bool = False,
        absent: dict[int, str] | None = None,
    ) -> None:
        self.wrong, self.failed, self.dies, self.absent = wrong or {}, failed, dies, absent or {}
        self.checks: list[Check] = []
        self.measured: list[Measure] = []

    def measure(self, order: Check | Measure) -> tuple[Any, Connection]:
        """As `WarmProcesses.measure`."""
        receiver, sender = Pipe()
        for message in self._answers(order):
            sender.send(message)
        sender.close()
        return FakeProcess(), receiver

    def _answers(self, order: Check | Measure) -> list[tuple[str, Any]]:
        if isinstance(order, Measure):
            self.measured.append(order)
            if self.dies:
                return []
            return [("failed", self.failed)] if self.failed else [("measured", self._measured())]
        self.checks.append(order)
        counted = [
            ("counted", (number, 1_000_000 + number, 0.5, (28, 28), "options"))
            for number in sorted(order.counted)
        ]
        wrong = [("wrong", pair) for pair in self.wrong.items()]
        absent = [("absent", pair) for pair in self.absent.items()]
        return [("machine", MACHINE), *counted, *absent, *wrong, ("checked", None)]

    def _measured(self) -> StepTimes:
        names = ("start_up", "batch", "val_batch", "epoch_end", "test", "test_batch")
        scaled: dict[str, Any] = {name: self.slowness * getattr(MEASURED, name) for name in names}
        return replace(MEASURED, **scaled)

"""Parameters, multiply-accumulates and correctness of every distinct configuration of a plan."""

from dataclasses import dataclass

from focal_lab.ablation.engine.orders import WarmProcesses
from focal_lab.ablation.plan import Plan
from focal_lab.ablation.runs import Run, hash_of
from focal_lab.errors import UserError


@dataclass(frozen=True)
class Cost:
    """Parameters, and billions of multiply-accumulates for one picture."""

    params: int
    gmacs: float


@dataclass(frozen=True)
class Checked:
    """A plan whose configurations all passed.

    Attributes:
        costs: run id -> cost.
        devices: GPUs that torch sees.
    """

    costs: dict[str, Cost]
    devices: int


def check_plan(plan: Plan, processes: WarmProcesses) -> Checked:
    """Parse and count every configuration that differs by more than its seed, in a warm process.

    Raises:
        UserError: a configuration is wrong; the message names the sweep file and the cell.
    """
    distinct: dict[str, list[Run]] = {}
    for run in plan.runs:
        distinct.setdefault(hash_of(run.config | {"seed_everything": None}), []).append(run)
    groups = list(distinct.values())
    process, messages = processes.count([group[0].config for group in groups])
    costs: dict[str, Cost] = {}
    try:
        while True:
            kind, value = messages.recv()
            if kind == "devices":
                return Checked(costs, value)
            number = value[0]
            if kind == "wrong":
                raise UserError(f"{value[1]}, for {groups[number][0].cell.name}", file=plan.sweep.path)
            for run in groups[number]:
                costs[run.id] = Cost(value[1], value[2])
    except EOFError as error:
        process.join()
        raise RuntimeError(f"checking the plan failed (exit status {process.exitcode})") from error
    finally:
        process.kill()

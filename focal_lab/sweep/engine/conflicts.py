"""Prevents commands in the same folder from mixing different sweeps of the same name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from focal_lab.errors import UserError
from focal_lab.sweep.plan.manifest import PLANS, all_manifests, known_runs
from focal_lab.sweep.plan.plan import Plan
from focal_lab.sweep.plan.recall import last_run
from focal_lab.utils.file_lock import FileLock, is_locked


def refuse_conflicts(plan: Plan, out: Path) -> None:
    """Refuse a plan that would replace another sweep of the same name.

    Raises:
        UserError: the folder has the runs of another file of that name, or a command is training the same
            sweep with other content now.
    """
    noted = last_run(plan.sweep.path, out)
    other = noted.get("path")
    if other and noted.get("suite") == plan.suite and noted.get("study") != plan.study:
        elsewhere = Path(other)
        if elsewhere != plan.sweep.path.resolve() and elsewhere.is_file():
            raise UserError(
                f"{out} holds the runs of another sweep of this name, {elsewhere}, with different content; "
                "give one of the files another name, or use another --out",
                file=plan.sweep.path,
            )
    for path in (out / PLANS).glob(f".{plan.sweep.name}-{plan.suite}-*.present"):
        study = path.name.removeprefix(".").removesuffix(".present")
        if study != plan.study and is_present(study, out):
            raise UserError(
                f"another command is training this sweep in an earlier version, or with other --set "
                f"(study {study}); wait for it or stop it, or use another --out "
                "(only seeds can be added to a sweep while it runs)",
                file=plan.sweep.path,
            )


@contextmanager
def present(study: str, out: Path) -> Iterator[None]:
    """Context in which this command is visible to others as one that trains runs of the study."""
    lock = FileLock(_presence_file(study, out))
    lock.acquire(shared=True)
    try:
        yield
    finally:
        lock.release()


def is_present(study: str, out: Path) -> bool:
    """Whether a command trains runs of the study now."""
    return is_locked(_presence_file(study, out), shared=True)


def _presence_file(study: str, out: Path) -> Path:
    return out / PLANS / f".{study}.present"


def other_studies(run: str, study: str, out: Path) -> list[str]:
    """Other studies that may train a run: two sweeps can share their baseline."""
    return [path.stem for path in all_manifests(out) if path.stem != study and run in known_runs(path)]

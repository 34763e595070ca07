"""Who else works in a folder of runs: two different sweeps of one name must not mix."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from focal_lab.errors import UserError
from focal_lab.sweep.plan.manifest import PLANS, all_manifests, read_manifest
from focal_lab.sweep.plan.plan import Plan, remembered
from focal_lab.utils.file_lock import FileLock


def refuse_conflicts(plan: Plan, out: Path) -> None:
    """Make sure that nobody's sweep is replaced by another of the same name.

    Raises:
        UserError: the folder holds the runs of another file of that name, or a command is training the same
            sweep with other content right now.
    """
    noted = remembered(plan.sweep.path, out)
    other = noted.get("path")
    if other and noted.get("suite") == plan.suite and noted.get("study") != plan.study:
        elsewhere = Path(other)
        if elsewhere != plan.sweep.path.resolve() and elsewhere.is_file():
            raise UserError(
                f"{out} holds the runs of another sweep of this name, {elsewhere}, with other content; "
                "give one of the files another name, or use another --out",
                file=plan.sweep.path,
            )
    for path in (out / PLANS).glob(f".{plan.sweep.name}-{plan.suite}-*.present"):
        study = path.name.removeprefix(".").removesuffix(".present")
        if study != plan.study and _is_present(path):
            raise UserError(
                f"a command is training this sweep as it was before it changed, or with other --set "
                f"(study {study}); wait for it or stop it, or use another --out "
                "(only seeds can be added to a sweep while it runs)",
                file=plan.sweep.path,
            )


@contextmanager
def present(study: str, out: Path) -> Iterator[None]:
    """While it lasts, others can tell that a command trains the runs of a study."""
    lock = FileLock(out / PLANS / f".{study}.present")
    lock.acquire(shared=True)
    try:
        yield
    finally:
        lock.release()


class Rivals:
    """Other studies that may train a run: two sweeps share their baseline.

    Args:
        out: folder of the runs.
        study: the study that is not its own rival.
    """

    def __init__(self, out: Path, study: str) -> None:
        self._out, self._study = out, study
        self._seen: dict[Path, float] = {}
        self._runs: dict[str, frozenset[str]] = {}

    def __call__(self, run: str) -> list[str]:
        """Names of the studies whose plans have the run."""
        for path in all_manifests(self._out):
            changed = path.stat().st_mtime
            if path.stem != self._study and self._seen.get(path) != changed:
                self._seen[path] = changed
                self._runs[path.stem] = self._read(path)
        return [study for study, runs in self._runs.items() if run in runs]

    @staticmethod
    def _read(path: Path) -> frozenset[str]:
        try:
            return frozenset(run.id for run in read_manifest(path).runs)
        except UserError:
            return frozenset()


def _is_present(path: Path) -> bool:
    lock = FileLock(path)
    free = lock.acquire(wait=False)
    lock.release()
    return not free

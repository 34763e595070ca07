"""Whatever is killed while a sweep trains, its results equal those of an undisturbed sweep."""

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.postgres_server import PostgresServer
from support.small_project import write_sweep
from test_sweep_end_to_end import command, killed, start, started_at, sweep, tiny, wait_until

from focal_lab.sweep.plan.plan import make_plan
from focal_lab.sweep.run_folder.layout import LAST_CHECKPOINT, LOCK_FILE, STOPPED_CHECKPOINT
from focal_lab.utils.file_lock import is_locked

__all__ = ["killed", "tiny"]  # fixtures

Commands = list[subprocess.Popen[str]]
# a training of some seconds: 10 epochs of 4 steps
LONG = {"trainer.max_epochs": 10, "data.num_train_images": 128, "model.warmup_epochs": 1}
FACTORS = {"window_size": [7]}


def metrics(out: Path) -> dict[str, Any]:
    return {path.parent.name: json.loads(path.read_text())["metrics"] for path in out.glob("*/result.json")}


def undisturbed(path: str, *arguments: str) -> dict[str, Any]:
    done = sweep(path, "--out", "undisturbed", *arguments)
    assert done.returncode == 0, done.stderr
    return metrics(Path("undisturbed"))


def epochs(out: Path) -> int:
    """When the last epoch of any run ended."""
    return max((file.stat().st_mtime_ns for file in out.glob(f"*/{LAST_CHECKPOINT}")), default=0)


def pid_of(folder: Path) -> int:
    return int((folder / LOCK_FILE).read_text())


def descendants(process: int) -> set[int]:
    """Processes below one, by /proc."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, IndexError):
            continue
    found = {process}
    while True:
        more = {child for child, parent in parents.items() if parent in found} - found
        if not more:
            return found - {process}
        found |= more


def all_gone(processes: set[int]) -> bool:
    return not any(map(is_alive, processes))


def is_alive(process: int) -> bool:
    """Whether it is more than an entry that whoever adopted it has not read yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_run_goes_on_from_its_checkpoint(tiny: Path, killed: Commands) -> None:
    path = str(write_sweep(factors=FACTORS, seeds=1, set=LONG))
    expected = undisturbed(path)
    (run,) = make_plan(Path(path)).runs
    process = start(killed, path)
    wait_until(lambda: (tiny / run.id / LAST_CHECKPOINT).exists())
    os.kill(pid_of(tiny / run.id), signal.SIGKILL)
    _, reported = process.communicate(timeout=120)
    assert process.returncode == 0, reported
    assert "killed by SIGKILL" in reported
    assert "1 trained, 0 reused" in reported
    assert metrics(tiny) == expected
    # it did not start again
    assert (tiny / run.id / "log.txt").read_text().count(f"at {tiny / run.id / LAST_CHECKPOINT}") >= 1


def test_a_hung_run_is_ended_and_tried_again(tiny: Path, killed: Commands) -> None:
    path = str(write_sweep(factors=FACTORS, seeds=1, set=LONG))
    (run,) = make_plan(Path(path)).runs
    process = start(killed, path, "--timeout", "6s")
    wait_until(lambda: (tiny / run.id / LAST_CHECKPOINT).exists())
    os.kill(pid_of(tiny / run.id), signal.SIGSTOP)
    _, reported = process.communicate(timeout=120)
    assert process.returncode == 0, reported
    assert "sent no message for 6 s (--timeout)" in reported


def test_ctrl_c_and_sigterm_leave_checkpoints_from_which_the_runs_go_on_exactly(
    tiny: Path, killed: Commands
) -> None:
    path = str(write_sweep(factors=FACTORS, seeds=2, set=LONG))
    expected = undisturbed(path, "--workers", "2")
    runs = make_plan(Path(path)).runs
    for number in (signal.SIGINT, signal.SIGTERM):
        before = epochs(tiny)
        process = start(killed, path, "--workers", "2")
        wait_until(lambda before=before: epochs(tiny) > before)
        below = descendants(process.pid)
        os.killpg(process.pid, number)  # as a terminal or a cluster does: to every process
        _, reported = process.communicate(timeout=60)
        assert process.returncode == 130, reported
        assert f"Resume with: focal-lab sweep {path} --workers 2" in reported
        wait_until(lambda below=below: all_gone(below), 10)
        assert any((tiny / run.id / STOPPED_CHECKPOINT).exists() for run in runs)
        assert not list(tiny.glob("*/failure.json"))
    done = sweep(path, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert metrics(tiny) == expected
    assert not list(tiny.glob(f"*/{STOPPED_CHECKPOINT}"))


def test_a_second_ctrl_c_leaves_at_once(tiny: Path, killed: Commands) -> None:
    path = str(write_sweep(factors=FACTORS, seeds=1, set=LONG))
    (run,) = make_plan(Path(path)).runs
    process = start(killed, path)
    wait_until(lambda: (tiny / run.id / LAST_CHECKPOINT).exists())
    below = descendants(process.pid)
    os.kill(pid_of(tiny / run.id), signal.SIGSTOP)  # it will write no checkpoint
    process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    assert process.poll() is None
    for _ in range(4):  # once is enough, but who is in a hurry presses it again
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    _, reported = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in reported
    assert "Resume with" in reported
    wait_until(lambda: all_gone(below), 10)


def test_ctrl_c_is_heard_by_the_runs_while_the_database_hangs(tiny: Path, killed: Commands) -> None:
    path = str(write_sweep(factors=FACTORS, seeds=1, set=LONG | {"trainer.max_epochs": 100}))
    (run,) = make_plan(Path(path)).runs
    try:
        server = PostgresServer()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    with server:
        process = start(killed, path, "--storage", server.url)
        wait_until(lambda: (tiny / run.id / LAST_CHECKPOINT).exists())
        server.pause()
        time.sleep(3)  # it is asked for something meanwhile
        process.send_signal(signal.SIGINT)
        wait_until(lambda: (tiny / run.id / STOPPED_CHECKPOINT).exists(), 20)
        server.resume()
        _, reported = process.communicate(timeout=60)
    assert process.returncode == 130, reported
    assert "Resume with" in reported
    assert not (tiny / run.id / "failure.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_ends_while_it_starts_leaves_nothing_behind(
    tiny: Path, killed: Commands, number: signal.Signals
) -> None:
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` ignores it
    process = start(killed, str(write_sweep()))
    signal.signal(signal.SIGINT, previous)
    # the fork server, which then imports for seconds
    wait_until(lambda: len(descendants(process.pid)) >= 2)
    below = descendants(process.pid)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # a terminal tells all of them
    else:
        process.kill()
    _, reported = process.communicate(timeout=60)  # whoever is left holds the pipe
    assert "Traceback" not in reported
    wait_until(lambda: all_gone(below), 4)
    assert not tiny.exists() or not list(tiny.glob("*/config.yaml"))


def test_a_killed_command_leaves_no_orphans_and_the_next_goes_on(tiny: Path, killed: Commands) -> None:
    path = str(write_sweep(factors=FACTORS, seeds=2, set=LONG | {"data.num_workers": 1}))
    expected = undisturbed(path, "--workers", "2")
    runs = make_plan(Path(path)).runs
    process = start(killed, path, "--workers", "2")
    wait_until(lambda: all((tiny / run.id / LAST_CHECKPOINT).exists() for run in runs))
    below = descendants(process.pid)
    assert len(below) >= 4
    process.kill()
    process.wait()
    wait_until(lambda: all_gone(below), 15)  # torch's loader processes look for their parent every 5 s
    done = sweep(path, "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert metrics(tiny) == expected


def test_a_worker_joins_and_killing_it_costs_nothing(tiny: Path, killed: Commands) -> None:
    path = str(write_sweep(factors={"window_size": [7, 14]}, seeds=2, set=LONG))
    expected = undisturbed(path, "--workers", "2")
    first = start(killed, path, "--workers", "1")
    wait_until(lambda: list(tiny.glob("plans/*.json")))
    worker_command = [*command()[:3], "worker", "--study", "small", "--workers", "1"]
    worker = subprocess.Popen(
        worker_command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    killed.append(worker)
    wait_until(lambda: len([folder for folder in tiny.glob("*/lock") if is_locked(folder)]) == 2)
    worker.kill()
    _, reported = first.communicate(timeout=180)
    assert first.returncode == 0, reported
    assert "4 runs: 4 trained" in reported
    assert metrics(tiny) == expected


def test_a_sweep_survives_the_kill_of_its_fork_server(tiny: Path, killed: Commands) -> None:
    path = str(write_sweep(factors=FACTORS, seeds=1, set=LONG))
    (run,) = make_plan(Path(path)).runs
    process = start(killed, path)
    wait_until(lambda: (tiny / run.id / LAST_CHECKPOINT).exists())
    child = pid_of(tiny / run.id)
    server = int(Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(server, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{child}").exists(), 10)
    _, reported = process.communicate(timeout=120)
    assert process.returncode == 0, reported
    assert "1 trained, 0 reused" in reported


def test_a_full_disk_stops_the_sweep_which_goes_on_when_there_is_room(tiny: Path) -> None:
    path = str(write_sweep(factors={"window_size": [7, 14]}, seeds=2))
    disk = Path("disk").resolve()
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    try:
        filler = disk / "filler"
        done = sweep(path, "--out", str(disk / "runs"), "--workers", "1", "--seeds", "1")
        assert done.returncode == 0, done.stderr
        before = started_at(disk / "runs")
        filler.write_bytes(bytes(70 * 2**20))
        refused = sweep(path, "--out", str(disk / "runs"))
        assert refused.returncode == 2
        assert f"--out: the disk of {disk}/runs (mounted on {disk}) is full" in refused.stderr
        filler.unlink()
        process = subprocess.Popen(
            command(path, "--out", str(disk / "runs"), "--workers", "1", "--set", "trainer.max_epochs=40"),
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        wait_until(lambda: list((disk / "runs").glob("*/lock")) and process.poll() is None)
        wait_until(lambda: any(is_locked(lock) for lock in (disk / "runs").glob("*/lock")))
        _fill(disk)
        _, reported = process.communicate(timeout=120)
        assert process.returncode == 1, reported
        assert f"the disk of {disk}/runs (mounted on {disk}) is full" in reported
        assert "Free disk space, then resume" in reported
        filler.unlink()
        done = sweep(path, "--out", str(disk / "runs"))
        assert done.returncode == 0, done.stderr
        assert before.items() <= started_at(disk / "runs").items()
        assert not list((disk / "runs").rglob(".unfinished*"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
        shutil.rmtree(disk, ignore_errors=True)


def _fill(disk: Path) -> None:
    with open(disk / "filler", "ab", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            return


def test_a_run_on_several_devices_crashes_and_resumes_as_a_whole(tiny: Path, killed: Commands) -> None:
    path = str(write_sweep(factors=FACTORS, seeds=1, set=LONG))
    two = ("--devices-per-run", "2")
    expected = undisturbed(path, *two)
    process = start(killed, path, *two)
    wait_until(lambda: list(tiny.glob(f"*/{LAST_CHECKPOINT}")))
    (lock,) = tiny.glob("*/lock")
    first = int(lock.read_text())
    server = int(Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[1])
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    second = max(int(child) for child in children if int(child) != first)
    os.kill(second, signal.SIGKILL)
    _, reported = process.communicate(timeout=120)
    assert process.returncode == 0, reported
    assert "killed by SIGKILL" in reported
    assert metrics(tiny) == expected

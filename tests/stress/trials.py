"""The trials: each returns what went wrong, and what it did."""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from world import World, compare

Told = tuple[list[str], str]
# tried again often enough: here whatever dies was killed
PATIENT = ("--retries", "20")


def kills(world: World, short: bool, seed: int) -> Told:
    """kill -9 of a run, a worker and a command in turn, at random moments."""
    count, seeds = (6, 2) if short else (20, 4)
    world.plan(seeds, epochs=6)
    expected = _undisturbed(world)
    chance = random.Random(seed)
    command = world.start_sweep("runs", "--workers", "1", *PATIENT)
    worker = _join(world)
    done = {"run": 0, "worker": 0, "command": 0}
    # spread over the sweep: each kill waits for its share of the runs
    for number in range(count):
        share = len(world.runs) * number // (count + 2)
        world.wait(lambda share=share: world.ended() >= share and bool(world.training()))
        time.sleep(chance.uniform(0.0, 2.0))
        kind = ("run", "worker", "command")[number % 3]
        if kind == "run":
            # one that ends by itself while it is chosen is no kill: another one is
            killed = world.wait(lambda: _kill_a_run(world, chance), seconds=60)
        elif kind == "worker":
            killed = worker.poll() is None
            _kill(worker)
            worker = _join(world)
        else:
            killed = command.poll() is None
            _kill(command)
            command = world.start_sweep("runs", "--workers", "1", *PATIENT)
        done[kind] += killed
    problems = _wait_for(world, [command])
    worker.wait(120)
    reported = ", ".join(f"{number} {kind}s" for kind, number in done.items())
    if sum(done.values()) < count:
        problems.append(f"only {sum(done.values())} of {count} kills hit something")
    return [*problems, *compare(world, expected)], f"{_counts(world)} after kill -9 of {reported}"


def _kill_a_run(world: World, chance: random.Random) -> bool:
    training = world.training()
    if not training:
        return False
    try:
        os.kill(chance.choice(training), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def four_commands(world: World, short: bool, seed: int) -> Told:
    """Four commands on one folder at the same time."""
    world.plan(2 if short else 6, epochs=2)
    expected = _undisturbed(world)
    commands = [world.start_sweep("runs", "--workers", "1") for _ in range(4)]
    problems = _wait_for(world, commands)
    return [*problems, *compare(world, expected)], f"{_counts(world)} by 4 commands at once"


def postgres(world: World, short: bool, seed: int) -> Told:
    """Four commands that share a PostgreSQL; one of them is killed, and the database goes away."""
    from support.postgres_server import PostgresServer

    away = 5 if short else 60
    world.plan(2 if short else 6, epochs=2)
    expected = _undisturbed(world)
    with PostgresServer() as server:
        shared = ("--workers", "1", "--storage", server.url, *PATIENT)
        commands = [world.start_sweep("runs", *shared)]
        world.wait(lambda: any((world.folder / "runs").glob("plans/*.json")))
        commands += [world.start("worker", "--study", "stress", "--out", "runs", *shared) for _ in range(3)]
        world.wait(lambda: world.ended() >= len(world.runs) // 4)
        _kill(commands.pop(1))
        world.wait(lambda: world.ended() >= len(world.runs) // 2)
        server.stop()
        time.sleep(away)
        server.start()
        problems = _wait_for(world, commands)
    log = (world.folder / "commands.log").read_text()
    if server.url.split(":")[2].split("@")[0] in log or "s3cr" in log:
        problems.append("the password was printed")
    reported = f"{_counts(world)} by 4 workers on PostgreSQL, one killed, the database away for {away} s"
    return [*problems, *compare(world, expected)], reported


def interrupts(world: World, short: bool, seed: int) -> Told:
    """SIGINT and SIGTERM again and again: every time the runs write checkpoints and go on from them."""
    world.plan(1, epochs=20)
    expected = _undisturbed(world)
    chance, count = random.Random(seed), 3 if short else 10
    for number in range(count):
        command = world.start_sweep("runs", "--workers", "2")
        world.wait(lambda command=command: bool(world.training()) or command.poll() is not None)
        time.sleep(chance.uniform(0.5, 6.0))
        os.killpg(command.pid, signal.SIGINT if number % 2 else signal.SIGTERM)
        command.wait(90)
    problems = _wait_for(world, [world.start_sweep("runs", "--workers", "2")])
    return [*problems, *compare(world, expected)], f"{_counts(world)} after {count} interruptions"


TRIALS: dict[str, Callable[[World, bool, int], Told]] = {
    "kills": kills,
    "four-commands": four_commands,
    "postgres": postgres,
    "interrupts": interrupts,
}


def _undisturbed(world: World) -> dict[str, Any]:
    command = world.start_sweep("undisturbed", "--workers", "2")
    if command.wait(1800) != 0:
        raise SystemExit((world.folder / "commands.log").read_text()[-3000:])
    return world.results("undisturbed")


def _join(world: World) -> subprocess.Popen[bytes]:
    world.wait(lambda: any((world.folder / "runs").glob("plans/*.json")), 60)
    return world.start("worker", "--study", "stress", "--out", "runs", "--workers", "1", *PATIENT)


def _kill(command: subprocess.Popen[bytes]) -> None:
    command.kill()
    command.wait()


def _wait_for(world: World, commands: list[subprocess.Popen[bytes]]) -> list[str]:
    problems = []
    for command in commands:
        try:
            status = command.wait(1800)
        except subprocess.TimeoutExpired:
            problems.append("a command did not end")
            continue
        if status != 0:
            problems.append(f"a command ended with status {status}")
    if problems:
        kept = Path(tempfile.gettempdir()) / f"focal-lab-stress-{os.getpid()}.log"
        shutil.copy(world.folder / "commands.log", kept)
        problems.append(f"see {kept}")
    return problems


def _counts(world: World) -> str:
    trainings = world.trainings()
    whole = sum(count >= 1 for count in trainings.values())
    duplicates = sum(max(0, count - 1) for count in trainings.values())
    return f"{len(world.runs)} runs, {len(world.results())} results, {whole} trained, {duplicates} duplicates"

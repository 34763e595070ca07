"""`make stress`: sweeps whose processes are killed, that several commands share, whose database goes away.

Every trial trains real networks on the embedded digits in real processes, and compares what comes out with
an undisturbed sweep, number by number. `--short` is what CI runs.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]

import trials  # noqa: E402
from world import World  # noqa: E402


def main() -> int:
    """Run the trials and print a line for each; exit status 1 when one of them went wrong."""
    parser = argparse.ArgumentParser(prog="make stress", description=str(__doc__).splitlines()[0])
    parser.add_argument("--short", action="store_true", help="fewer runs and kills")
    parser.add_argument("--seed", type=int, default=0, help="of when and what is killed")
    parser.add_argument("--only", choices=sorted(trials.TRIALS), help="one trial")
    options = parser.parse_args()
    wrong = 0
    for name, trial in trials.TRIALS.items():
        if options.only not in (None, name):
            continue
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="focal-lab-stress-") as folder, World(Path(folder)) as world:
            problems, reported = trial(world, options.short, options.seed)
        verdict = "; ".join(["WRONG", *problems]) if problems else "ok"
        print(f"{name}: {reported}: {verdict} ({time.monotonic() - begin:.0f} s)", flush=True)
        wrong += bool(problems)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

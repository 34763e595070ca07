"""Makes the pages in docs/ablations from the runs of the six sweeps; what is written by hand below stays.

for sweep in window_size interactions window_shift focal_levels depth downsample; do
  focal-lab sweep sweeps/$sweep.yaml --seeds 5
done
python docs/ablations.py runs --seeds 5
"""

import argparse
import io
import json
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from focal_lab.cli import main as focal_lab

PAGES = Path(__file__).parent / "ablations"
SWEEPS = ("window_size", "interactions", "window_shift", "focal_levels", "depth", "downsample")
PLOTS = {
    "bars-top1": "every cell beside the paper's; bars do not begin at 0",
    "effects-top1": "main effects",
    "curves-classification": "learning curves, with bands over seeds",
    "tradeoff-top1": "accuracy against multiply-accumulates",
}
BY_HAND = "## What this shows, and what not"


def main() -> None:
    """Write all pages."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", help="folder of the runs")
    parser.add_argument("--seeds", default="3")
    options = parser.parse_args()
    for sweep in SWEEPS:
        write_page(sweep, ["--out", options.out, "--seeds", options.seeds])


def write_page(sweep: str, which: list[str]) -> None:
    """Write docs/ablations/SWEEP.md and its images."""
    report = ["report", f"sweeps/{sweep}.yaml", *which]
    table = printed([*report, "--format", "markdown"]).replace("### ", "# ", 1)
    known = json.loads(printed([*report, "--format", "json"]))
    runs: list[dict[str, Any]] = json.loads(printed([*report, "--long", "--format", "json"]))
    with TemporaryDirectory() as folder:
        printed([*report, "--plots", folder])
        images = []
        for name, caption in PLOTS.items():
            drawn = Path(folder) / f"{sweep}-{name}.svg"
            if drawn.is_file():
                (PAGES / drawn.name).write_bytes(drawn.read_bytes())
                images.append(f"![{caption}]({drawn.name})")
    title, _, rest = table.partition("\n")
    page = [title, "", origin(sweep, which[-1], known, runs), rest.rstrip("\n"), "", *images, "", BY_HAND]
    path = PAGES / f"{sweep}.md"
    by_hand = path.read_text(encoding="utf-8").partition(BY_HAND)[2] if path.exists() else "\n"
    path.write_text("\n".join(page) + by_hand, encoding="utf-8")


def origin(sweep: str, seeds: str, known: dict[str, Any], runs: list[dict[str, Any]]) -> str:
    """Command and place, as the results tell them; times are no result where other work ran beside."""
    distinct = {run["run"] for run in runs}
    made = known["provenance"]
    commits = ", ".join(commit[:7] for commit in made["commits"])
    versions = ", ".join(f"{name} {'/'.join(made['versions'][name])}" for name in ("torch", "timm"))
    return (
        f"`focal-lab sweep sweeps/{sweep}.yaml --seeds {seeds}`: {len(distinct)} runs on "
        f"{', '.join(made['hardware'])}; commit {commits}, {versions}.\n"
    )


def printed(arguments: list[str]) -> str:
    """What a command prints."""
    with redirect_stdout(io.StringIO()) as text:
        status = focal_lab(arguments)
    if status:
        raise SystemExit(status)
    return text.getvalue()


if __name__ == "__main__":
    main()

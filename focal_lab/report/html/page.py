"""A sweep as one self-contained HTML file: tables, plots, what every run was. No network."""

import base64
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focal_lab._version import __version__
from focal_lab.report.formats.grid import claim_words
from focal_lab.report.html.attention_images import inspected
from focal_lab.report.html.runs import problems, run_groups
from focal_lab.report.html.svg import Drawn, draw_all
from focal_lab.report.html.tables import main_grid, section_grids, word_cell
from focal_lab.report.plots import sweep_plots
from focal_lab.report.table.claims import overall
from focal_lab.report.table.model import Table
from focal_lab.sweep.run_folder.outcome import State

if TYPE_CHECKING:
    from jinja2 import Template

    from focal_lab.sweep.plan.plan import Plan

TEMPLATES = Path(__file__).with_name("templates")


def page(
    table: Table,
    plan: "Plan",
    out: Path,
    *,
    refresh: float | None = None,
    plots: Sequence[Drawn] | None = None,
    command: str | None = None,
) -> str:
    """The whole page.

    Args:
        table: of the plan.
        plan: gives the settings of runs that have not finished, and a search's objectives.
        out: where the runs are.
        refresh: seconds after which the page loads itself again, because it is being rewritten; None: never.
        plots: drawn before; None: drawn now.
        command: that made the page; None: the plain one.
    """
    from markupsafe import Markup

    drawn = draw_plots(table, plan, out) if plots is None else plots
    style, script = _asset("page.css"), _asset("page.js")
    failures, more_failures = problems(table, out)
    pictures, left_out = inspected(table, out)
    runs = {run.run: run.state for row in table.rows for run in row.runs}
    return _template().render(
        table=table,
        title=table.title,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(script),
        refresh=refresh,
        verdict=_verdict(table),
        main=main_grid(table),
        sections=section_grids(table),
        plots=[(plot, Markup(plot.svg)) for plot in drawn],
        groups=run_groups(table, plan, out),
        failures=failures,
        more_failures=more_failures,
        pictures=pictures,
        left_out=left_out,
        cells=sum(not row.reference for row in table.rows),
        finished=sum(state is State.FINISHED for state in runs.values()),
        planned=len(runs),
        versions=_counted(table.provenance.versions),
        command=command or page_command(table, out),
        written=datetime.now(UTC),
        version=__version__,
    )


def draw_plots(table: Table, plan: "Plan", out: Path) -> list[Drawn]:
    """The plots of a page, with a search's own objectives."""
    return draw_all(sweep_plots(table, out, objectives_of(plan)))


def objectives_of(plan: "Plan") -> Mapping[str, str] | None:
    """Of a search, column -> maximize or minimize; None for a design."""
    return None if plan.recipe is None else plan.recipe.search.objectives


def page_command(table: Table, out: Path, options: Sequence[str] = ()) -> str:
    """The command that makes the page."""
    sweep = shlex.split(table.command)[2]
    elsewhere = [] if out == Path("runs") else ["--out", str(out)]
    return shlex.join(["focal-lab", "report", sweep, "--format", "html", *elsewhere, *options])


def _verdict(table: Table) -> dict[str, Any] | None:
    """The answer to the claim; None where the sweep states none that can be tested."""
    if not table.answers:
        return None
    word, _ = overall(table.answers)
    return {"word": word_cell(word), "text": claim_words(table.answers)}


def _counted(versions: Mapping[str, Mapping[str, int]]) -> list[tuple[str, str]]:
    """Package and version; with counts where runs differ."""
    return [
        (
            package,
            next(iter(found)) if len(found) == 1 else ", ".join(f"{v} ({n} runs)" for v, n in found.items()),
        )
        for package, found in versions.items()
    ]


@cache
def _asset(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _policy(script: str) -> str:
    """Content security policy: our script and nothing else, no address but those inside the page."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2")

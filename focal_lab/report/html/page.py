"""A sweep as one self-contained HTML file: tables, plots, runs and provenance."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from focal_lab._version import __version__
from focal_lab.report.formats.grid import claim_words, table_grid, table_sections, tone
from focal_lab.report.html.attention_images import attention_images
from focal_lab.report.html.run_details import failed_runs, run_groups
from focal_lab.report.html.svg import inline_svg
from focal_lab.report.plots import sweep_plots
from focal_lab.report.plots.style import Plot, heading
from focal_lab.report.table.claims import overall
from focal_lab.report.table.records import Table, runs_words, shown_name
from focal_lab.sweep.run_folder.outcome import State

if TYPE_CHECKING:
    from jinja2 import Template

    from focal_lab.sweep.plan.plan import Plan

_MAX_FAILURES = 40
_TEMPLATES = Path(__file__).with_name("templates")


def page(
    table: Table,
    plan: "Plan",
    out: Path,
    *,
    refresh: float | None = None,
    plots: Sequence[tuple[Plot, str]] | None = None,
    command: str | None = None,
) -> str:
    """The HTML of the page.

    Args:
        table: of the plan.
        plan: has the settings of runs that have not finished, and a search's objectives.
        out: folder of the runs.
        refresh: seconds after which the page reloads itself; None: never.
        plots: with their SVG, if they have been drawn already.
        command: that writes the page.
    """
    from markupsafe import Markup

    if plots is None:
        plots = draw_plots(table, plan, out)
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    failures = failed_runs(table, out)
    images, left_out = attention_images(table, out)
    runs = {run.run: run.state for row in table.rows for run in row.runs}
    return _template().render(
        table=table,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(script),
        refresh=refresh,
        verdict=overall(table.answers) if table.answers else None,
        verdict_text=claim_words(table.answers) if table.answers else None,
        main=table_grid(table),
        sections=table_sections(table),
        plots=[(plot, Markup(svg)) for plot, svg in plots],
        groups=run_groups(table, plan, out),
        failures=failures[:_MAX_FAILURES],
        more_failures=len(failures[_MAX_FAILURES:]),
        images=images,
        left_out=left_out,
        cells=sum(not row.reference for row in table.rows),
        finished=sum(state is State.FINISHED for state in runs.values()),
        planned=len(runs),
        versions={package: _versions(found) for package, found in table.provenance.versions.items()},
        command=command or f"focal-lab report {plan.sweep.path} --format html",
        written=datetime.now(UTC),
        version=__version__,
    )


def draw_plots(table: Table, plan: "Plan", out: Path) -> list[tuple[Plot, str]]:
    """The plots of a page and their SVG."""
    return [(plot, inline_svg(plot)) for plot in sweep_plots(table, plan, out)]


def _versions(runs: Mapping[str, int]) -> str:
    """A version, or several with the number of their runs."""
    return next(iter(runs)) if len(runs) == 1 else ", ".join(f"{v} ({n} runs)" for v, n in runs.items())


def _policy(script: str) -> str:
    """Content security policy: only our script, and no URL outside the page."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


@cache
def _template() -> "Template":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"tone": tone, "raised": heading, "name": shown_name, "runs_words": runs_words}
    return environment.get_template("page.html.j2")

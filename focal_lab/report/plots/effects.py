"""Effects of factors: the main effects, interactions and shares of the table, with its intervals."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from focal_lab.report.plots.measured import interval
from focal_lab.report.plots.style import (
    MUTED,
    SERIES,
    Plot,
    heading,
    name_rows,
    new_figure,
    note,
    tidy,
    words,
)
from focal_lab.report.table.decide import LEAST_SEEDS
from focal_lab.report.table.factor_effects import level_words, shown_effects, shown_levels
from focal_lab.report.table.records import Effect, Row, Table
from focal_lab.sweep.spec.columns import COLUMNS, Column

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# heading -> name of the row and what it shows
Panels = dict[str, list[tuple[str, Effect]]]


def effect_plots(table: Table) -> list[Plot]:
    """A plot for each task's main metric, if the table has effects."""
    plots = []
    for metric in dict.fromkeys(effect.metric for effect in table.effects):
        column = COLUMNS[metric]
        shown, _ = shown_effects([effect for effect in table.effects if effect.metric == metric])
        plots.append(
            Plot(
                f"effects-{metric}",
                f"Effects of the factors on {heading(column.title)}",
                _caption(shown, table.rows),
                partial(_draw, column, _panels(shown, table.rows)),
            )
        )
    return plots


def _caption(effects: Sequence[Effect], rows: Sequence[Row]) -> str:
    seeds = effects[0].n
    kinds = {effect.kind for effect in effects}
    parts = ["Main effect: difference from the reference level, averaged over the other factors."]
    if "interaction" in kinds:
        parts.append("Interaction: how much one factor changes the other's effect.")
    if "share" in kinds:
        parts.append("Share: the factor's Shapley value.")
    elif any(effect.percent is not None for effect in effects):
        parts.append("Percentages: shares of the whole difference (Shapley values).")
    whole = next(effect for effect in effects if effect.kind == "whole difference")
    parts.append(f"Whole difference: {level_words(whole, rows)}.")
    over = "seeds and test images" if all(effect.images for effect in effects) else "seeds"
    bars = f"Bars: 95 % interval over {over}" if seeds >= LEAST_SEEDS else f"Fewer than {LEAST_SEEDS} seeds"
    return f"{' '.join(parts)} {bars}; n = {seeds}."


def _panels(effects: Sequence[Effect], rows: Sequence[Row]) -> Panels:
    panels: Panels = {}
    shares = any(effect.kind == "share" for effect in effects)
    for effect in effects:
        references, levels = shown_levels(effect, rows)
        factors = [factor.replace("_", " ") for factor in effect.levels]
        if effect.kind == "main effect":
            title, name = f"{factors[0]}, against {references[0]}", levels[0]
        elif effect.kind == "interaction":
            title, name = "interactions", ", ".join(levels)
        else:
            title = "shares of the whole difference" if shares else "whole difference"
            name = factors[0] if effect.kind == "share" else "all factors"
        panels.setdefault(title, []).append((name, effect))
    return panels


def _draw(column: Column, panels: Panels, title: str) -> "Figure":
    figure = new_figure(0.6 + sum(0.42 + 0.3 * len(rows) for rows in panels.values()), title)
    ratios = [1.0 + 0.75 * len(rows) for rows in panels.values()]
    axes_of = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    ends = [0.0]
    for place, (axes, (name, rows)) in enumerate(zip(axes_of, panels.items(), strict=True)):
        axes.axvline(0, color=MUTED, linewidth=0.8)
        for y, (_, effect) in enumerate(rows):
            # adding 0.0 turns -0.0 into 0.0
            middle, half_width = effect.difference + 0.0, interval(effect)
            ends += [middle - (half_width or 0.0), middle + (half_width or 0.0)]
            axes.errorbar(
                middle, y, xerr=half_width, color=SERIES[place % len(SERIES)], marker="o", elinewidth=1.2
            )
            text = f"{round(middle, column.digits) + 0.0:+.{column.digits}f}"
            if effect.percent is not None:
                text += f" ({effect.percent:.0f} %)"
            note(axes, text, middle, y, xytext=(0, 5), ha="center", va="bottom")
        axes.set_title(words(name, 60))
        name_rows(axes, [row for row, _ in rows], above=0.75)
        tidy(axes)
    room = (max(ends) - min(ends)) * 0.1 or 1.0
    axes_of[-1].set_xlim(min(ends) - room, max(ends) + room)
    axes_of[-1].set_xlabel(f"difference in {heading(column.title)}")
    return figure

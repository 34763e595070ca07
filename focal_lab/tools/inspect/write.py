"""The output files of `focal-lab inspect`: plots, `inspect.json`, which lists them, and the printed table."""

import json
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError
from focal_lab.report.html.attention_images import INSPECT_FILE
from focal_lab.report.plots.style import Plot, settings
from focal_lab.report.published.layouts import paper_tables
from focal_lab.tools.inspect import plots
from focal_lab.tools.inspect.shares import DrawnImage, Inspection
from focal_lab.tools.inspect.source import UNTRAINED, model_name, network_of
from focal_lab.tools.trained.load import TrainedTask
from focal_lab.utils.atomic_files import write_atomic
from focal_lab.utils.text_table import TextColumn, aligned
from focal_lab.utils.units import many

SCHEMA = 1
_DPI = 100  # legible for 28 px digits and 224 px images, and small enough for a page of them
# The paper's names of the levels, and the network whose blocks they were measured on.
_PUBLISHED = {"window": "Local-InWindow", "ring": "Local-OutWindow", "pooled 1": "Global-OutWindow"}
_PUBLISHED_DEPTHS = (2, 2, 6, 2)


def published_shares(trained: TrainedTask) -> dict[str, list[float]] | None:
    """Figure 7 of the paper, level -> share of each block; None without coarse levels or at other depths."""
    network = network_of(trained)
    pooled = any(stage.levels for stage in network.stages_config)
    if tuple(network.options.depths) != _PUBLISHED_DEPTHS or not pooled:
        return None
    figure = paper_tables()["figure7_attention_share"]
    return {level: list(figure[name]) for level, name in _PUBLISHED.items()}


def write_inspection(
    trained: TrainedTask, found: Inspection, folder: Path, *, brief: bool = False, **given: Any
) -> dict[str, Any]:
    """Draw and write everything; returns the contents of `inspect.json`.

    Args:
        trained: the network.
        found: the results.
        folder: created if necessary.
        brief: for a page of many networks: of the biases only the first coarse level's.
        given: further entries, such as the head of the command line.

    Raises:
        UserError: the folder cannot be written to.
    """
    from matplotlib import rc_context

    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INSPECT_FILE).unlink(missing_ok=True)  # readers ignore a folder without it
        written = []
        for plot in _plots(trained, found, brief):
            figure = plot.draw()
            with rc_context(settings()):
                figure.savefig(folder / f"{plot.name}.png", dpi=_DPI, pil_kwargs={"optimize": True})
            written.append({"file": f"{plot.name}.png", "caption": plot.caption})
        record = _record(trained, found) | given | {"pictures": written}
        write_atomic(folder / INSPECT_FILE, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}", key="--output") from error
    return record


def summary(trained: TrainedTask, found: Inspection, folder: Path, record: dict[str, Any]) -> str:
    """What the command prints: the network, a table of shares, and the files."""
    settings = ", ".join(f"{key}={value}" for key, value in record["options"].items())
    model = record["model"] + (f" ({settings})" if settings else "")
    width = shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else None
    agreement = "equal to its own output to the last bit"
    if found.error:
        agreement = f"differs from its own output by {found.error:.0e} of the largest value"
    lines = [
        f"{model}, {record['checkpoint'] or 'untrained'}",
        f"attention by level, averaged over queries, heads and {found.count} image(s)",
        "",
        _shares_text(found, published_shares(trained) or {}, width),
        f"recomputed beside the network; {agreement}",
        *(f"{folder / plot['file']}" for plot in record["pictures"]),
    ]
    return "\n".join(lines)


def _shares_text(found: Inspection, paper: dict[str, list[float]], width: int | None) -> str:
    """The shares of each block as a text table in percent, with the paper's if it has any."""
    columns = [
        ("block", [str(block["block"]) for block in found.blocks]),
        ("stage", [str(block["stage"]) for block in found.blocks]),
        ("heads", [str(len(block["shares_by_head"]["window"])) for block in found.blocks]),
        ("keys", [str(block["keys"]) for block in found.blocks]),
    ]
    for level in found.levels:
        columns.append((f"{level} %", [_percent(block["shares"].get(level)) for block in found.blocks]))
        if level in paper:
            columns.append(("paper", [_percent(share) for share in paper[level]]))
    padding = [block["off_picture"] for block in found.blocks]
    if max(padding) > 0:
        columns.append(("of it padding %", [_percent(share) for share in padding]))
    return aligned([TextColumn(name, cells, right=True) for name, cells in columns], width)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"  # noqa: RUF001


def _plots(trained: TrainedTask, found: Inspection, brief: bool) -> Iterator[Plot]:
    for number, drawn in enumerate(found.drawn):
        x, y = drawn.query
        yield Plot(
            f"attention-{number}",
            f"{trained.name}: what one query attends to",
            f"What the query at pixel ({x}, {y}) of {drawn.name} attends to. First column: the reach of each "
            "level. The others: its attention, full colour at the level's highest (square root scale); a "
            "pooled token colours all tokens that it stands for.",
            partial(plots.draw_query, drawn, found.levels),
        )
    yield Plot(
        "shares",
        f"{trained.name}: where attention goes",
        "Attention to each level per block, averaged over queries and heads and "
        f"{many(found.count, 'image')}.",
        partial(plots.draw_shares, found, published_shares(trained)),
    )
    deepest = max(len(layer.attention.stage.levels) for layer in found.layers)
    for level in range(1, min(deepest, 1 if brief else deepest) + 1):
        yield Plot(
            f"biases-{level}",
            f"{trained.name}: biases of pooled level {level}",
            f"Learned position biases of pooled level {level}: a row per block, a column per head.",
            partial(plots.draw_biases, found.layers, level),
        )
    if not brief:
        yield Plot(
            "biases-window",
            f"{trained.name}: biases of the window",
            "Learned position biases of the window's own tokens: a row per block, a column per head.",
            partial(plots.draw_biases, found.layers, 0),
        )
    yield Plot(
        "receptive-field",
        f"{trained.name}: receptive field",
        "Receptive field of a query against the tokens that it uses, before it is cut to the map; the "
        "paper's curve is its figure 3.",
        partial(plots.draw_reach, found.reach, paper_tables()["figure3_receptive_field"]),
    )


def _record(trained: TrainedTask, found: Inspection) -> dict[str, Any]:
    alone, untrained = not trained.state, trained.weights == UNTRAINED
    return {
        "schema": SCHEMA,
        "run": None if trained.run is None else trained.run.name,
        "checkpoint": None if untrained else str(trained.file),
        "model": model_name(trained),
        "options": trained.options.get("backbone_options") or {},
        "task": None if alone else trained.task,
        "pictures_averaged": found.count,
        "relative_error": found.error,
        "levels": found.levels,
        "blocks": found.blocks,
        "published_shares": published_shares(trained),
        "queries": [_query(drawn) for drawn in found.drawn],
        "receptive_field": found.reach,
    }


def _query(drawn: DrawnImage) -> dict[str, Any]:
    return {
        "picture": drawn.name,
        "pixel": list(drawn.query),
        "size": list(drawn.pixels_HW3.shape[:2]),
        "blocks": [
            {
                "block": view.layer.number,
                "token": list(view.token),
                "levels": {
                    level.name: {"share": level.share, "highest": level.highest} for level in view.levels
                },
            }
            for view in drawn.views
        ],
    }

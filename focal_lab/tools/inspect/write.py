"""The output files of `focal-lab inspect`: plots, `inspect.json`, which lists them, and the printed table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError
from focal_lab.report.html.attention_images import INSPECT_FILE
from focal_lab.report.published.layouts import paper_tables
from focal_lab.tools.inspect import plots
from focal_lab.tools.inspect.probabilities import AttentionBlock
from focal_lab.tools.inspect.shares import Inspection
from focal_lab.tools.inspect.source import InspectedNetwork
from focal_lab.utils.atomic_files import write_atomic
from focal_lab.utils.text_table import TextColumn, aligned

SCHEMA = 1
# The paper's names of the levels, and the network whose blocks they were measured on.
_PUBLISHED = {"window": "Local-InWindow", "ring": "Local-OutWindow", "pooled 1": "Global-OutWindow"}
_PUBLISHED_DEPTHS = (2, 2, 6, 2)


def published_shares(source: InspectedNetwork) -> dict[str, list[float]] | None:
    """Figure 7 of the paper, level -> share of each block; None without coarse levels or at other depths."""
    network = source.network
    pooled = any(stage.levels for stage in network.stages_config)
    if tuple(network.options.depths) != _PUBLISHED_DEPTHS or not pooled:
        return None
    figure = paper_tables()["figure7_attention_share"]
    return {level: list(figure[name]) for level, name in _PUBLISHED.items()}


def write_inspection(
    source: InspectedNetwork,
    found: Inspection,
    layers: Sequence[AttentionBlock],
    folder: Path,
    *,
    brief: bool = False,
    **given: Any,
) -> dict[str, Any]:
    """Draw and write everything; returns the contents of `inspect.json`.

    Args:
        source: the network.
        found: the results.
        layers: the drawn blocks.
        folder: created if necessary.
        brief: for a page of many networks: of the biases only the first coarse level's.
        given: further entries, such as the query and the head of the command line.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / INSPECT_FILE).unlink(missing_ok=True)  # readers ignore a folder without it
        record = _record(source, found) | given | {"pictures": _draw(source, found, layers, folder, brief)}
        write_atomic(folder / INSPECT_FILE, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}", key="--output") from error
    return record


def shares_text(source: InspectedNetwork, found: Inspection, width: int | None = None) -> str:
    """The shares of each block as a text table in percent, with the paper's if it has any."""
    paper = published_shares(source) or {}
    columns = {
        "block": [str(share.layer.number) for share in found.shares],
        "stage": [str(share.layer.stage) for share in found.shares],
        "heads": [str(share.layer.attention.num_heads) for share in found.shares],
        "keys": [str(share.keys) for share in found.shares],
    }
    texts = [TextColumn(name, cells, right=True) for name, cells in columns.items()]
    for level in found.levels:
        texts.append(TextColumn(f"{level} %", [_percent(s.mean(level)) for s in found.shares], right=True))
        if level in paper:
            texts.append(TextColumn("paper", [_percent(share) for share in paper[level]], right=True))
    if any(share.off_image > 0 for share in found.shares):
        off = [_percent(share.off_image) for share in found.shares]
        texts.append(TextColumn("of it padding %", off, right=True))
    return aligned(texts, width)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"  # noqa: RUF001


def _draw(
    source: InspectedNetwork, found: Inspection, layers: Sequence[AttentionBlock], folder: Path, brief: bool
) -> list[dict[str, str]]:
    """Write the plots; the file and the caption of each."""
    written = []

    def save(name: str, figure: Any, caption: str) -> None:
        if figure is not None:
            plots.save(figure, folder / f"{name}.png")
            written.append({"file": f"{name}.png", "caption": caption})

    for number, drawn in enumerate(found.drawn):
        x, y = drawn.query
        save(
            f"attention-{number}",
            plots.draw_query(drawn, found.levels, f"{source.name}: what one query attends to"),
            f"What the query at pixel ({x}, {y}) of {drawn.name} attends to. First column: the reach of each "
            "level. The others: its attention, full colour at the level's highest (square root scale); a "
            "pooled token colours all tokens that it stands for.",
        )
    save(
        "shares",
        plots.draw_shares(found, f"{source.name}: where attention goes", published_shares(source)),
        "Attention to each level per block, averaged over queries and heads and "
        f"{found.count} image{'s' if found.count != 1 else ''}.",
    )
    deepest = max(len(stage.levels) for stage in source.network.stages_config)
    for level in range(1, min(deepest, 1 if brief else deepest) + 1):
        save(
            f"biases-{level}",
            plots.draw_biases(layers, level, f"{source.name}: biases of pooled level {level}"),
            f"Learned position biases of pooled level {level}: a row per block, a column per head.",
        )
    if not brief:
        save(
            "biases-window",
            plots.draw_biases(layers, 0, f"{source.name}: biases of the window"),
            "Learned position biases of the window's own tokens: a row per block, a column per head.",
        )
    curves = paper_tables()["figure3_receptive_field"]
    save(
        "receptive-field",
        plots.draw_reach(found.reach, f"{source.name}: receptive field", curves),
        "Receptive field of a query against the tokens that it uses, before it is cut to the map; the "
        "paper's curve is its figure 3.",
    )
    return written


def _record(source: InspectedNetwork, found: Inspection) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "run": None if source.run is None else source.run.name,
        "checkpoint": None if source.file is None else str(source.file),
        "model": source.model,
        "options": dict(source.settings),
        "task": source.trained and source.trained.task,
        "pictures_averaged": found.count,
        "relative_error": found.error,
        "levels": found.levels,
        "blocks": [
            {
                "block": share.layer.number,
                "stage": share.layer.stage,
                "shifted": share.layer.shifted,
                "window": list(share.layer.attention.stage.window),
                "keys": share.keys,
                "shares": {level: share.mean(level) for level in share.shares},
                "shares_by_head": share.shares,
                "off_picture": share.off_image,
            }
            for share in found.shares
        ],
        "published_shares": published_shares(source),
        "queries": [
            {
                "picture": drawn.name,
                "pixel": list(drawn.query),
                "size": list(drawn.pixels_HW3.shape[:2]),
                "blocks": [
                    {
                        "block": view.layer.number,
                        "token": list(view.token),
                        "levels": {
                            level.name: {"share": level.share, "highest": level.highest}
                            for level in view.levels
                        },
                    }
                    for view in drawn.views
                ],
            }
            for drawn in found.drawn
        ],
        "receptive_field": [[point._asdict() for point in stage] for stage in found.reach],
    }

"""What `focal-lab inspect` writes: pictures, and `inspect.json`, which names them; and its table."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from focal_lab.errors import UserError
from focal_lab.report.html.attention_images import INSPECT_FILE
from focal_lab.report.published.tables import paper_tables
from focal_lab.tools.inspect import plots as drawing
from focal_lab.tools.inspect.measure import Inspection
from focal_lab.tools.inspect.probabilities import Layer
from focal_lab.tools.inspect.source import Source
from focal_lab.utils.atomic_files import write_atomic
from focal_lab.utils.text_table import TextColumn, aligned

SCHEMA = 1
_NOTHING = "–"  # noqa: RUF001
# The paper's names of the levels, and the network whose blocks they were measured on.
_PUBLISHED = {"window": "Local-InWindow", "ring": "Local-OutWindow", "pooled 1": "Global-OutWindow"}
_PUBLISHED_DEPTHS = (2, 2, 6, 2)


def published_shares(source: Source) -> dict[str, list[float]] | None:
    """Figure 7 of the paper, level -> share of each block; None for a network of other depths, or without
    coarse levels."""
    options = source.network.options
    if tuple(options.depths) != _PUBLISHED_DEPTHS or not any(s.levels for s in source.network.stages_config):
        return None
    figure = paper_tables()["figure7_attention_share"]
    return {level: list(figure[name]) for level, name in _PUBLISHED.items()}


def write_inspection(
    source: Source,
    found: Inspection,
    layers: Sequence[Layer],
    folder: Path,
    *,
    brief: bool = False,
    **given: Any,
) -> dict[str, Any]:
    """Draw everything and note it; what is returned is what `inspect.json` holds.

    Args:
        source: the network.
        found: what it looks at.
        layers: the drawn blocks.
        folder: made if it is not there.
        brief: for a page of many networks: no biases but the first coarse level's.
        given: what else to note, such as the query and the head that were asked for.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # whoever reads the folder meanwhile finds no half of it
        (folder / INSPECT_FILE).unlink(missing_ok=True)
        pictures = _draw(source, found, layers, folder, brief)
        record = _record(source, found) | given | {"pictures": pictures}
        write_atomic(folder / INSPECT_FILE, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}", key="--output") from error
    return record


def shares_text(source: Source, found: Inspection, width: int | None = None, *, color: bool = False) -> str:
    """The shares of each block as a table of text, in percent; the paper's beside them where it has any."""
    paper = published_shares(source)
    layers = [share.layer for share in found.shares]
    columns = [
        TextColumn("block", [str(layer.number) for layer in layers], right=True),
        TextColumn("stage", [str(layer.stage) for layer in layers], right=True),
        TextColumn("heads", [str(layer.attention.num_heads) for layer in layers], right=True),
        TextColumn("keys", [str(share.keys) for share in found.shares], right=True),
    ]
    for level in found.levels:
        columns.append(TextColumn(f"{level} %", [_percent(s.mean(level)) for s in found.shares], right=True))
        if paper and level in paper:
            columns.append(TextColumn("paper", [_percent(share) for share in paper[level]], right=True))
    if any(share.off_picture > 0 for share in found.shares):
        off = [_percent(share.off_picture) for share in found.shares]
        columns.append(TextColumn("of it padding %", off, right=True))
    return aligned(columns, width, color=color)


def _percent(share: float | None) -> str:
    return _NOTHING if share is None else f"{100 * share:.1f}"


def _draw(
    source: Source, found: Inspection, layers: Sequence[Layer], folder: Path, brief: bool
) -> list[dict[str, str]]:
    pictures = []

    def keep(name: str, caption: str, figure: Any) -> None:
        if figure is not None:
            drawing.save(figure, folder / f"{name}.png")
            pictures.append({"file": f"{name}.png", "caption": caption})

    for number, seen in enumerate(found.drawn):
        x, y = seen.query
        keep(
            f"attention-{number}",
            f"What the query at pixel ({x}, {y}) of {seen.name} attends to. First column: the reach of each "
            "level; then its attention, full colour at the level's highest (square root scale); a pooled "
            "token colours all that it stands for.",
            drawing.draw_query(seen, found.levels, f"{source.name}: what one query attends to"),
        )
    counted = f"{found.count} picture{'s' if found.count != 1 else ''}"
    keep(
        "shares",
        f"Attention to each level per block, averaged over queries and heads and {counted}.",
        drawing.draw_shares(found, f"{source.name}: where attention goes", published_shares(source)),
    )
    deepest = max(len(stage.levels) for stage in source.network.stages_config)
    for level in range(1, min(deepest, 1 if brief else deepest) + 1):
        keep(
            f"biases-{level}",
            f"Learned position biases of pooled level {level}: a row a block, a column a head.",
            drawing.draw_biases(layers, level, f"{source.name}: biases of pooled level {level}"),
        )
    if not brief:
        keep(
            "biases-window",
            "Learned position biases of the window's own tokens: a row a block, a column a head.",
            drawing.draw_biases(layers, 0, f"{source.name}: biases of the window"),
        )
    keep(
        "receptive-field",
        "Receptive field of a query against the tokens that it uses, before it is cut to the map; the "
        "paper's curve is its figure 3.",
        drawing.draw_reach(
            found.reach, f"{source.name}: receptive field", paper_tables()["figure3_receptive_field"]
        ),
    )
    return pictures


def _record(source: Source, found: Inspection) -> dict[str, Any]:
    options: Mapping[str, Any] = source.settings
    return {
        "schema": SCHEMA,
        "run": None if source.run is None else source.run.name,
        "checkpoint": None if source.file is None else str(source.file),
        "model": source.model,
        "options": dict(options),
        "task": source.task,
        "pictures_averaged": found.count,
        "relative_error": found.error,
        "levels": list(found.levels),
        "blocks": [
            {
                "block": share.layer.number,
                "stage": share.layer.stage,
                "shifted": share.layer.shifted,
                "window": list(share.layer.attention.stage.window),
                "keys": share.keys,
                "shares": {level: share.mean(level) for level in share.shares},
                "shares_by_head": share.shares,
                "off_picture": share.off_picture,
            }
            for share in found.shares
        ],
        "published_shares": published_shares(source),
        "queries": [
            {
                "picture": seen.name,
                "pixel": list(seen.query),
                "size": list(seen.pixels_HW3.shape[:2]),
                "blocks": [
                    {
                        "block": view.layer.number,
                        "token": list(view.token),
                        "levels": {
                            level.name: {"share": level.share, "highest": level.highest}
                            for level in view.levels
                        },
                    }
                    for view in seen.views
                ],
            }
            for seen in found.drawn
        ],
        "receptive_field": [
            [{"level": point.level, "tokens": point.tokens, "field": point.field} for point in stage]
            for stage in found.reach
        ],
    }

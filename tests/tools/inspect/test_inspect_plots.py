"""Plots of `focal-lab inspect` state their colour scale and keep full colour."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from matplotlib.colors import to_rgb
from PIL import Image

from focal_lab.report.plots.style import Plot
from focal_lab.tools.inspect.plots import QUERY_SCALE, color_of, draw_query
from focal_lab.tools.inspect.probabilities import SeenLevel
from focal_lab.tools.inspect.shares import DrawnImage, QueryView


def drawn_image() -> DrawnImage:
    layer: Any = SimpleNamespace(stride=8, number=0, stage=1)
    level = SeenLevel("window", torch.tensor([[0.4, 0.1, 0.0, 0.0]]), torch.eye(4).view(4, 2, 2).bool())
    view = QueryView(layer, (0, 0), [level])
    pixels = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)
    return DrawnImage("x", pixels, (0, 0), [view])


def test_colour_is_the_square_root_of_attention_and_the_plot_says_so(tmp_path: Path) -> None:
    plot = Plot("x", "title", "", lambda title: draw_query(drawn_image(), ["window"], title))
    figure = plot.draw()
    assert figure.get_supxlabel() == QUERY_SCALE
    shown = figure.axes[1].get_images()[0].get_array()
    washed = 0.5 + 0.5 * drawn_image().pixels_HW3.mean(-1)[0, 8]
    colour = np.array(to_rgb(color_of("window")))
    # a quarter of the highest attention has half of the colour's 0.95
    assert shown is not None
    np.testing.assert_allclose(shown[0, 8], washed * (1 - 0.475) + colour * 0.475, atol=1e-5)
    figure.savefig(tmp_path / "x.png", dpi=100)
    with Image.open(tmp_path / "x.png") as drawn:
        assert drawn.mode == "RGBA"
        assert len(drawn.getcolors(1 << 20) or ()) > 256

"""A project in the working folder: the suites `digits` and `large`, and sweep files written by the tests."""

from pathlib import Path
from typing import Any

import yaml

DIGITS = """\
seed_everything: 0
trainer: {max_epochs: 2, log_every_n_steps: 20}
model:
  class_path: focal_lab.tasks.Classification
  init_args: {backbone: focal_micro, num_classes: 10, lr: 3e-3}
data:
  class_path: focal_lab.data.DigitsClassification
  init_args: {batch_size: 64}
"""


def write_project() -> None:
    """Two suites; `digits` has two tasks and small stand-ins, `large` one task at 224 px."""
    write("experiments/digits/suite.yaml", "backbones: {focal_tiny: focal_micro, swin: focal_swin_micro}\n")
    write("experiments/digits/classification.yaml", DIGITS)
    write("experiments/digits/detection.yaml", DIGITS)
    write("experiments/large/classification.yaml", DIGITS.replace("focal_micro", "focal_tiny"))


def write(path: str, text: str) -> Path:
    """A file with that text, its folders made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(text, encoding="utf-8")
    return Path(path)


def write_sweep(name: str = "small", **keys: Any) -> Path:
    """A sweep file: windows 7 and 14 with two seeds, but for these keys."""
    content = {"factors": {"window_size": [7, 14]}, "seeds": 2} | keys
    return write(f"sweeps/{name}.yaml", yaml.safe_dump(content, sort_keys=False))

"""Golden files of the released classification code: weights, an image and its logits."""

import json
import lzma
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load
from torch import Tensor

GOLDEN = Path(__file__).parent.parent / "golden"


@dataclass(frozen=True)
class Golden:
    """One golden file: the options of a backbone, released weights, an image and its logits."""

    options: dict[str, Any]
    weights: dict[str, Tensor]
    image: Tensor
    logits: Tensor


def read_golden(name: str) -> Golden:
    """`tests/golden/<name>.safetensors.xz`."""
    data = lzma.decompress((GOLDEN / f"{name}.safetensors.xz").read_bytes())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    options = json.loads(header["__metadata__"]["config"])
    del options["focal_stages"]  # every stage is focal
    if options["focal_pool"] == "none":
        del options["focal_pool"]  # there is no level to pool
    tensors = load(data)
    weights = {
        key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")
    }
    return Golden(options, weights, tensors["input"], tensors["logits"])

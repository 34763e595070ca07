"""Writes a network as a graph in one file: ONNX, or torch.export's format."""

import importlib.util
import json
import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from focal_lab._version import __version__
from focal_lab.errors import UserError
from focal_lab.tools.export.verify import Outputs, Runner, as_outputs
from focal_lab.tools.export.wrapper import INPUT, Portable
from focal_lab.tools.trained.load import TrainedTask

# Name of the metadata in torch.export's file.
METADATA = "focal_lab.json"
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
# torch.export specializes sizes 0 and 1.
_RECORDED_BATCH = 2
# The head, and how evaluation resizes images before the network sees them.
_HEAD_OPTIONS = (
    "method", "decoder", "min_size", "max_size", "test_size", "evaluation", "window", "window_step"
)  # fmt: skip


def check_installed() -> None:
    """Raise UserError if one of ONNX's packages is missing."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"onnx needs {', '.join(missing)} (pip install 'focal-lab[export]')", key="--to")


def write_graph(
    trained: TrainedTask, network: Portable, kind: str, path: Path, batch: int | None, opset: int | None
) -> Runner:
    """Write a network as a graph; returns a function that runs the file.

    Args:
        trained: where the network is from.
        network: its part that is exported.
        kind: onnx or torch_export.
        path: the file.
        batch: the batch size; None for any.
        opset: of ONNX; None for torch's own choice.

    Raises:
        UserError: the network does something that the format cannot hold, the graph cannot be converted to
            the opset, or the data does not define its preprocessing.
    """
    metadata = _metadata(trained, network, batch)
    name = str(trained.options.get("method") or trained.options["backbone"])
    with _one_line_errors(kind, name):
        program = record(network, batch)
        if kind == "onnx":
            return _write_onnx(program, network, path, metadata, opset)
    return _write_torch_export(program, path, metadata)


def record(network: Portable, batch: int | None) -> torch.export.ExportedProgram:
    """The network's graph for a batch size; None for any."""
    shapes = ({0: torch.export.Dim("batch", min=1)},) if batch is None else None
    example = network.batch(batch or _RECORDED_BATCH)
    return torch.export.export(network.network, (example,), dynamic_shapes=shapes)


def _write_onnx(
    program: torch.export.ExportedProgram,
    network: Portable,
    path: Path,
    metadata: Mapping[str, Any],
    opset: int | None,
) -> Runner:
    written = torch.onnx.export(
        program,
        input_names=[INPUT],
        output_names=list(network.outputs),
        opset_version=opset,
        dynamo=True,
        verbose=False,
    )
    assert written is not None
    made = written.model.opset_imports[""]
    if opset not in (None, made):  # torch only logs that it could not convert the graph
        raise UserError(f"torch cannot convert the graph to {opset}; it writes {made}", key="--opset")
    written.model.metadata_props.update(
        {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    )
    written.save(path, external_data=False)
    import onnxruntime  # type: ignore[import-untyped]

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(images_BCHW: Tensor) -> Outputs:
        return [torch.from_numpy(value) for value in session.run(None, {INPUT: images_BCHW.numpy()})]

    return run


def _write_torch_export(
    program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, Any]
) -> Runner:
    with open(path, "wb") as stream:  # given a path, torch insists on the ending .pt2
        torch.export.save(program, stream, extra_files={METADATA: json.dumps(metadata)})
    with open(path, "rb") as written:
        module = torch.export.load(written).module()

    def run(images_BCHW: Tensor) -> Outputs:
        with torch.no_grad():
            return as_outputs(module(images_BCHW))

    return run


def _metadata(trained: TrainedTask, network: Portable, batch: int | None) -> dict[str, Any]:
    """What a reader of the file needs, as plain values: where it is from, classes, preprocessing, outputs."""
    preprocessing = trained.preprocessing()
    square = trained.task == "classification"
    metadata: dict[str, Any] = {
        "focal_lab": __version__,
        "task": trained.task,
        "backbone": str(trained.options["backbone"]),
        "backbone_options": trained.options.get("backbone_options") or {},
        "weights": trained.weights,
        "epoch": int(trained.state.get("epoch", 0)),
        "classes": trained.class_names,
        "category_ids": list(trained.module.classes.category_ids),
        "input_size": [network.channels, *network.size],
        "batch": "any" if batch is None else batch,
        "mean": list(preprocessing.mean),
        "std": list(preprocessing.std),
        "interpolation": preprocessing.interpolation if square else "bilinear",
        "crop_pct": preprocessing.crop_pct if square else 1.0,
        "outputs": dict(network.outputs),
    }
    metadata |= {name: trained.options[name] for name in _HEAD_OPTIONS if name in trained.options}
    return metadata | dict(network.thresholds)


@contextmanager
def _one_line_errors(kind: str, name: str) -> Iterator[None]:
    """Turn torch's exceptions of many kinds, a page each, into a UserError; its warnings are dropped."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # torch logs the graph so far, hundreds of lines
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (UserError, OSError):
        raise
    except Exception as error:
        raise UserError(f"{name} cannot be written as {kind}: {_reason(error)}", key="--to") from error
    finally:
        logging.disable(before)


def _reason(error: BaseException) -> str:
    """The first line of the innermost exception."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip().splitlines()  # without colours
    return f"{type(error).__name__}: {lines[0][:200] if lines else ''}"

"""A network as a graph in one file: ONNX, or torch.export's format."""

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

from focal_lab.errors import UserError
from focal_lab.tools.export.verify import Outputs, Runner, as_outputs
from focal_lab.tools.export.wrapper import INPUT, Portable

ONNX, TORCH_EXPORT = "onnx", "torch_export"
ENDINGS = {ONNX: ".onnx", TORCH_EXPORT: ".pt2"}
# The name, in torch.export's file, of what is known about the network.
METADATA = "focal_lab.json"
_NEEDED = ("onnx", "onnxscript", "onnxruntime")
# 0 and 1 are special to torch.export: a batch of these would be taken for a constant.
_RECORDED = 2


def check_installed(kind: str) -> None:
    """Look for the packages of a format before anything is done.

    Raises:
        UserError: one is missing.
    """
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if kind == ONNX and missing:
        raise UserError(f"onnx needs {', '.join(missing)} (pip install 'focal-lab[export]')", key="--to")


def record(made: Portable, kind: str, batch: int | None, called: str) -> torch.export.ExportedProgram:
    """The network's graph.

    Args:
        made: the network.
        kind: the format that it is for, for the message.
        batch: pictures that it takes at a time; None for any number.
        called: what to call the network in the message.

    Raises:
        UserError: it does something that no graph can hold.
    """
    shapes = ({0: torch.export.Dim("batch", min=1)},) if batch is None else None
    with _told_in_a_line(kind, called):
        return torch.export.export(made.network, (made.batch(batch or _RECORDED),), dynamic_shapes=shapes)


def write_onnx(
    program: torch.export.ExportedProgram,
    made: Portable,
    path: Path,
    metadata: Mapping[str, Any],
    opset: int | None,
    called: str,
) -> Runner:
    """Write ONNX; what runs the file.

    Raises:
        UserError: ONNX has no operator for something in the graph, or the graph cannot have that opset.
    """
    with _told_in_a_line(ONNX, called):
        written = torch.onnx.export(
            program,
            input_names=[INPUT],
            output_names=list(made.outputs),
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
        assert written is not None
        _check_opset(opset, written.model.opset_imports[""])
        written.model.metadata_props.update(
            {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
        )
        written.save(path, external_data=False)
    import onnxruntime  # type: ignore[import-untyped]

    with _told_in_a_line(ONNX, called):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(pictures_BCHW: Tensor) -> Outputs:
        return [torch.from_numpy(value) for value in session.run(None, {INPUT: pictures_BCHW.numpy()})]

    return run


def _check_opset(asked: int | None, made: int | None) -> None:
    """torch keeps the opset that it made where it cannot get to another one, and says so in its log alone."""
    if asked is not None and asked != made:
        raise UserError(
            f"the graph cannot be brought to {asked}; torch writes {made} (leave it out)", key="--opset"
        )


def write_torch_export(
    program: torch.export.ExportedProgram, path: Path, metadata: Mapping[str, Any]
) -> Runner:
    """Write torch.export's format; what runs the file."""
    # given a name, torch insists on its ending
    with open(path, "wb") as stream:
        torch.export.save(program, stream, extra_files={METADATA: json.dumps(metadata)})
    with open(path, "rb") as written:
        module = torch.export.load(written).module()

    def run(pictures_BCHW: Tensor) -> Outputs:
        with torch.no_grad():
            return as_outputs(module(pictures_BCHW))

    return run


@contextmanager
def _told_in_a_line(kind: str, called: str) -> Iterator[None]:
    """torch tells what it cannot record by exceptions of many kinds, a page each."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # the graph so far, of hundreds of lines
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")  # about its own insides
            yield
    except (UserError, OSError):
        raise
    except Exception as error:
        raise UserError(f"{called} cannot be written as {kind}: {reason(error)}", key="--to") from error
    finally:
        logging.disable(before)


def reason(error: BaseException) -> str:
    """What is wrong, in a line: the innermost exception's first sentence, and where it was raised."""
    inner = error
    while inner.__cause__ is not None:
        inner = inner.__cause__
    told = re.sub(r"\x1b\[[0-9;]*m", "", str(inner)).strip()
    first = re.sub(r" \(unhinted:.*| *\(Size-like.*", "", next(iter(told.splitlines()), ""))
    where = re.search(r"Caused by: .*?((?:[\w.-]+/)*[\w.-]+\.py:\d+ in \w+)", told)
    return f"{type(inner).__name__}: {first[:200]}" + (f" ({where[1]})" if where else "")

"""Event files, TensorBoard's format: records of protocol buffers, made in memory."""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2, types_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

_MARKDOWN_PLUGIN = "text"


@dataclass(frozen=True)
class Record:
    """One value of one tag.

    Attributes:
        value: a `Summary.Value`.
        step: optimizer steps, or whatever TensorBoard is to draw it over.
        time: seconds since 1970.
    """

    value: Any
    step: int = 0
    time: float = 0.0


def event_file(records: Iterable[Record]) -> bytes:
    """The content of an event file; equal records give equal bytes."""
    stream = io.BytesIO()
    writer = RecordWriter(stream)
    writer.write(event_pb2.Event(file_version="brain.Event:2").SerializeToString(deterministic=True))
    for record in records:
        summary = summary_pb2.Summary(value=[record.value])
        event = event_pb2.Event(wall_time=record.time, step=record.step, summary=summary)
        writer.write(event.SerializeToString(deterministic=True))
    return stream.getvalue()


def scalar(tag: str, value: float) -> Any:
    """A number, as Lightning's logger writes it."""
    return summary_pb2.Summary.Value(tag=tag, simple_value=value)


def text(tag: str, markdown: str) -> Any:
    """Words in Markdown."""
    return _strings(tag, [markdown.encode()], _MARKDOWN_PLUGIN, summary_pb2.DATA_CLASS_TENSOR)


def picture(tag: str, png: bytes, width: int, height: int) -> Any:
    """A picture of so many pixels."""
    image = summary_pb2.Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
    return summary_pb2.Summary.Value(tag=tag, image=image)


def plugin_value(tag: str, plugin: str, content: bytes) -> Any:
    """What a plugin reads from the description of a tag alone."""
    return summary_pb2.Summary.Value(
        tag=tag, metadata=_metadata(plugin, content), tensor=_tensor(types_pb2.DT_FLOAT, (0,))
    )


def plugin_message(tag: str, plugin: str, message: bytes) -> Any:
    """What a plugin reads as the value of a tag."""
    return _strings(tag, [message], plugin, summary_pb2.DATA_CLASS_TENSOR, shape=())


def _strings(
    tag: str, values: Sequence[bytes], plugin: str, data_class: Any, shape: Sequence[int] | None = None
) -> Any:
    tensor = _tensor(types_pb2.DT_STRING, (len(values),) if shape is None else shape)
    tensor.string_val.extend(values)
    metadata = _metadata(plugin)
    metadata.data_class = data_class
    return summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _tensor(dtype: Any, shape: Sequence[int]) -> Any:
    sizes = [tensor_shape_pb2.TensorShapeProto.Dim(size=size) for size in shape]
    return tensor_pb2.TensorProto(dtype=dtype, tensor_shape=tensor_shape_pb2.TensorShapeProto(dim=sizes))


def _metadata(plugin: str, content: bytes = b"") -> Any:
    data = summary_pb2.SummaryMetadata.PluginData(plugin_name=plugin, content=content)
    return summary_pb2.SummaryMetadata(plugin_data=data)

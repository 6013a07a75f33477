"""Small data sets on disk, made for the tests."""

from __future__ import annotations

import gzip
import io
import struct
from pathlib import Path

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from PIL import Image

CLASSES = ("ant", "bee", "cat")


def smooth_image(seed: int, size: tuple[int, int] = (20, 26)) -> np.ndarray:
    """Smooth colours uint8 (H, W, 3), different for every seed."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def image_folder(root: Path, count: int = 8, classes: tuple[str, ...] = CLASSES) -> Path:
    """``count`` PNG files a class; the image of class c and number k is ``smooth_image(100 * c + k)``."""
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for k in range(count):
            (root / name / f"{k:03}.png").write_bytes(encoded(smooth_image(100 * c + k)))
    return root


def idx_file(path: Path, values: np.ndarray) -> None:
    data = struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def _example_class():
    """tf.train.Example from its published definition, by protobuf itself."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="t", syntax="proto3")
    label, kind = descriptor_pb2.FieldDescriptorProto, descriptor_pb2.FieldDescriptorProto
    for name, number in (
        ("BytesList", kind.TYPE_BYTES),
        ("FloatList", kind.TYPE_FLOAT),
        ("Int64List", kind.TYPE_INT64),
    ):
        message = file.message_type.add(name=name)
        message.field.add(name="value", number=1, type=number, label=label.LABEL_REPEATED)
    feature = file.message_type.add(name="Feature")
    for at, name in enumerate(("bytes_list", "float_list", "int64_list"), 1):
        kind_name = {"bytes_list": "BytesList", "float_list": "FloatList", "int64_list": "Int64List"}[name]
        feature.field.add(name=name, number=at, type=kind.TYPE_MESSAGE, type_name=f".t.{kind_name}", label=1)
    both = file.message_type.add(name="Features")
    entry = both.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kind.TYPE_STRING, label=1)
    entry.field.add(name="value", number=2, type=kind.TYPE_MESSAGE, type_name=".t.Feature", label=1)
    both.field.add(name="feature", number=1, type=kind.TYPE_MESSAGE, type_name=".t.Features.FeatureEntry", label=3)
    example = file.message_type.add(name="Example")
    example.field.add(name="features", number=1, type=kind.TYPE_MESSAGE, type_name=".t.Features", label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Example"))


EXAMPLE = _example_class()

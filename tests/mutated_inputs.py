"""Seeded damage to what people hand over besides weights: rules, configurations, captures, images.

``python -m tests.mutated_inputs SUBJECT SEED COUNT`` attacks one kind in a process with little memory, and prints how
many mutants ended how; the slow suite runs it.
"""

from __future__ import annotations

import json
import random
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

import conversion
from conversion.config_json.preprocessor import preprocessing
from conversion.images.image import crop, normalize
from tests.conversion.bad_files import CONFIG, PARAMS
from tests.conversion.mutants import changed, mutant, run_with_a_gigabyte, watched
from vit_jax.training.data.images import training_pixels
from vit_jax.training.data.record import Record
from vit_jax.training.recipe.config import TrainConfig, read_config
from vit_jax.training.recipe.data import Augmentation
from vit_parity.capture import Capture
from vit_parity.capture_file import load_capture, save_capture
from vit_spec import Preprocessing, VitportError

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (61, 47, 3), dtype=np.uint8))
_STEPS = Preprocessing(size=(20, 28), crop_fraction=0.9)


class Subject(NamedTuple):
    """One kind of file."""

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    """What of the file counts; a damaged one is refused, read as the same, or read as something else that ``check``
    finds possible."""
    check: Callable[[Path, Any, Any], None] = lambda path, found, good: None
    """Takes the file, what was read, and what the good file holds."""


def _write(text: str) -> Callable[[Path], None]:
    return lambda path: path.write_text(text, encoding="utf-8") and None


def _rules(path: Path) -> Any:
    weights = path.with_name("weights.safetensors")
    if not weights.exists():
        from safetensors.numpy import save_file

        save_file({f"own.{name}": array for name, array in PARAMS.items()}, weights)
    found = conversion.load(weights, rename=path)
    return found.config, {name: np.asarray(found.params[name]).tobytes() for name in found.params}


def _rules_text() -> str:
    facts = {name: CONFIG.to_dict()[name] for name in ("num_heads", "norm_eps", "activation", "pool", "block")}
    rules: dict[str, Any] = {}
    for name in PARAMS:
        parts = name.split(".")
        generic = ".".join("<i>" if part.isdigit() else part for part in parts)
        rules[generic] = f"own.{generic}"
    return yaml.safe_dump({"facts": facts | {"norm": "layernorm"}, "ignore": ["aux.*"], "rules": rules})


def _capture(path: Path) -> None:
    rng = np.random.default_rng(1)
    activations = {f"blocks.{at}": rng.standard_normal((2, 5, 8)).astype(np.float32) for at in range(3)}
    save_capture(
        Capture("a capture", activations, rng.standard_normal((2, 12, 12, 3)).astype(np.float32), {"model": "x"}), path
    )


def _captured(path: Path) -> Any:
    found = load_capture(path)
    assert found.title.isprintable()
    assert all(f"{name}{value}".isprintable() for name, value in found.facts.items())
    return found.title, dict(found.facts), {name: array.tobytes() for name, array in found.activations.items()}


def _same_numbers(path: Path, found: Any, good: Any) -> None:
    """An archive has a checksum of each array; the names of what it holds are in its record, which has one too."""
    if path.suffix == ".npz":
        assert found == good


def _preprocessor_text() -> str:
    return json.dumps(
        {
            "image_processor_type": "ViTImageProcessor", "do_resize": True, "size": {"height": 24, "width": 20},
            "resample": 3, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
            "image_mean": [0.5, 0.3, 0.2], "image_std": [0.2, 0.3, 0.5], "do_center_crop": False,
        }
    )  # fmt: skip


def _pixels(path: Path) -> Any:
    from conversion.containers.file_checks import read_json

    steps = preprocessing(read_json(path), {}, 3)
    return normalize(crop(IMAGE, steps), steps)


def _as_transformers(path: Path, found: Any, good: Any) -> None:
    """Oracle: the processor that transformers makes of the file."""
    import transformers

    told = json.loads(path.read_text())
    kind = (told.get("image_processor_type") or "ViTImageProcessor").removesuffix("Fast")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        processor = getattr(transformers, f"{kind}Pil")(**told)
        theirs = np.asarray(processor(IMAGE, return_tensors="np")["pixel_values"][0])
    theirs = theirs.transpose(1, 2, 0)
    assert found.shape == theirs.shape
    np.testing.assert_allclose(found, theirs, rtol=0, atol=1e-5)


def _image(kind: str, **options: Any) -> Callable[[Path], None]:
    return lambda path: IMAGE.save(path, kind, **options)


def _seen(path: Path) -> Any:
    """By `vitport predict`, and by training."""
    pixels = conversion.load_image(path, _STEPS)
    assert pixels.shape == (20, 28, 3)
    assert np.isfinite(pixels).all()
    record = Record(str(path), 0, path.read_bytes())
    assert training_pixels(record, _STEPS, Augmentation(), np.random.default_rng(0)).shape == (20, 28, 3)
    return pixels.tobytes()


_IMAGES = {
    "image.png": _image("PNG"),
    "image.jpg": _image("JPEG", quality=90),
    "progressive.jpg": _image("JPEG", progressive=True, exif=Image.Exif()),
    "image.webp": _image("WEBP"),
    "image.tif": _image("TIFF", compression="tiff_lzw"),
    "jpeg.tif": _image("TIFF", compression="jpeg"),
    "image.bmp": _image("BMP"),
    "image.gif": _image("GIF"),
    "image.avif": _image("AVIF"),
    "image.ppm": _image("PPM"),
}
_GIVEN = {"model": {"name": "vit_tiny_patch16_224", "image_size": [32, 48]}, "steps": 10, "batch": 8}
_CONFIG = yaml.safe_dump(TrainConfig().to_dict() | _GIVEN)
SUBJECTS = {
    subject.name: subject
    for subject in (
        Subject("rules.yaml", _write(_rules_text()), _rules),
        Subject("config.yaml", _write(_CONFIG), lambda path: json.dumps(read_config(path).to_dict())),
        Subject("capture.npz", _capture, _captured, _same_numbers),
        Subject("capture.safetensors", _capture, _captured, _same_numbers),
        Subject("preprocessor_config.json", _write(_preprocessor_text()), _pixels, _as_transformers),
        *(Subject(name, make, _seen) for name, make in _IMAGES.items()),
    )
}


def _damaged(path: Path, content: bytes, rng: random.Random) -> bytes:
    """Half the mutants of a text file are of its values."""
    if path.suffix == ".yaml" and rng.random() < 0.5:
        value = changed(yaml.safe_load(content), rng)
        try:
            return yaml.safe_dump(value, allow_unicode=rng.random() < 0.5).encode()
        except (ValueError, RecursionError):
            return json.dumps(None).encode()
    return mutant(content, rng)


def attack(name: str, folder: Path, seed: int, count: int) -> Counter[str]:
    """Read ``count`` mutants of one kind.

    Raises:
        AssertionError: with the number of the mutant that ended otherwise than it may.
    """
    subject, path = SUBJECTS[name], folder / name
    subject.make(path)
    content, good = path.read_bytes(), subject.read(path)
    found: Counter[str] = Counter()
    for at in range(count):
        rng = random.Random(f"{name} {seed} {at}")
        path.write_bytes(_damaged(path, content, rng))
        try:
            found[_outcome(subject, path, good)] += 1
        except BaseException as error:
            raise AssertionError(f"mutant {at} of {name} (seed {seed}): {type(error).__name__}: {error}") from error
    return found


def _outcome(subject: Subject, path: Path, good: Any) -> str:
    try:
        with watched():
            read = subject.read(path)
    except VitportError as error:
        text = str(error)
        assert text.isprintable(), repr(text)
        assert text.endswith("."), text
        return "refused"
    subject.check(path, read, good)
    same = np.array_equal(read, good) if isinstance(read, np.ndarray) else read == good
    return "the same" if same else "as it says"


if __name__ == "__main__":
    run_with_a_gigabyte(attack)

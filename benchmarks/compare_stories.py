"""The two stories of docs/comparing.md, told on a trained DINOv2: prints their numbers.

    python -m benchmarks.compare_stories WEIGHTS IMAGE

WEIGHTS is a DINOv2 ViT, such as the demo's (``vitport demo`` leaves it in its cache).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

import conversion
from conversion import Checkpoint
from vit_parity import compare_captures, explain
from vit_parity.comparison import Comparison
from vit_parity.endpoints import parse_endpoint, run_endpoint
from vit_parity.explain import Explanation
from vit_parity.hypotheses import Origin
from vit_parity.replay import ReplayedModel, float64_params
from vit_parity.truth import truth_of
from vit_spec.vit.config import PositionResize


def main() -> None:
    """Print both stories as tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights")
    parser.add_argument("image")
    options = parser.parse_args()
    own = conversion.load(options.weights)
    checkpoint = conversion.prepare(None, weights=own, image_size=224)
    tell("A correct pair: PyTorch and JAX", *measure(checkpoint, checkpoint, own, options.image))
    tanh = replace(checkpoint, config=checkpoint.config.replace(activation="gelu_tanh"))
    tell("tanh GELU in place of erf", *measure(checkpoint, tanh, own, options.image))
    # One method in place of the other, both without DINO's offset and without antialiasing.
    methods: tuple[PositionResize, PositionResize] = ("torch-bicubic", "torch-bicubic-antialias")
    right, wrong = (conversion.prepare(None, weights=own, image_size=560, resize=method) for method in methods)
    tell("bicubic -0.5 in place of -0.75, at 560 pixels", *measure(right, wrong, own, options.image))


def measure(
    right: Checkpoint, wrong: Checkpoint, own: Checkpoint, image: str
) -> tuple[Comparison, tuple[Explanation, ...]]:
    """A is the correct model in PyTorch, B the wrong one in JAX."""
    images = conversion.load_image(image, right.preprocessing)[None]
    truth = truth_of(right, images)
    model = ReplayedModel(right.config, float64_params(right.params), images)
    a = run_endpoint(parse_endpoint("torch:A"), right, images, "float32")
    b = run_endpoint(parse_endpoint("jax:B"), wrong, images, "float32")
    found = compare_captures(a, b, truth=truth, model=model)
    return found, explain(b, model, Origin(right.preprocessing, own))


def tell(title: str, found: Comparison, causes: tuple[Explanation, ...]) -> None:
    """Print one table and the causes found."""
    say(f"\n## {title}\n")
    say("| after | B against A | A error | B error | rounding explains | verdict |")
    say("|---|---|---|---|---|---|")
    first = found.first_divergence
    for row in found.rows:
        between = row.name in ("embed", "norm", "features", "logits") or (
            row.name.startswith("blocks.") and row.name.count(".") == 1
        )
        if between or row is first:
            errors = f"{row.error_a or 0:.1e} | {row.error_b or 0:.1e}"
            say(f"| {row.name} | {row.difference.relative:.1e} | {errors} | {row.tolerance:.1e} | {row.verdict} |")
    say(f"\nFirst divergence: {first.name if first else 'none'}")
    for cause in causes:
        say(f"Cause: {cause.sentence}")


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()

"""Write goldens.npz: what vit_torch answers in float64, for machines that have JAX and no torch.

    python -m tests.jax_alone.make_goldens

The file holds configs and answers; weights and images are drawn again from their seed (see golden_models.py).
"""

from __future__ import annotations

import numpy as np
import torch

from tests.jax_alone.golden_models import GOLDENS, MODELS, Question
from vit_spec import ViTConfig
from vit_torch import VisionTransformer


def answer(config: ViTConfig) -> dict[str, np.ndarray]:
    """The model's output, and the gradients of its sum of squares by the images and by every parameter; float64."""
    question = Question(config)
    model = VisionTransformer(config).double().eval()
    model.load_state_dict({name: torch.from_numpy(array) for name, array in question.params.items()})
    images = torch.from_numpy(question.images).requires_grad_()
    output = model(images)
    output.square().sum().backward()
    assert images.grad is not None
    gradients = {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    return {
        "output": output.detach().numpy(),
        "image_gradient": images.grad.numpy(),
        **question.measure(gradients),
    }


def main() -> None:
    arrays = {f"{name}/{key}": array for name, config in MODELS.items() for key, array in answer(config).items()}
    configs = {f"{name}/config": np.array(config.to_json()) for name, config in MODELS.items()}
    np.savez_compressed(GOLDENS, **arrays, **configs)


if __name__ == "__main__":
    main()

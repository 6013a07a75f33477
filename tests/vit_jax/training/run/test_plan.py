"""What a dry run says that devices send each other. Oracle: arithmetic written out here."""

from __future__ import annotations

from vit_jax.training.recipe.execution import MeshShape
from vit_jax.training.run.plan import communication
from vit_jax.training.scaling import Step
from vit_spec import get_model


def test_a_dry_run_says_what_devices_send() -> None:
    model = get_model("vit_base_patch16_224").config
    kernels = 2 * 12 * 3 * 768 * 768 / 4 * 4
    found = communication(Step(model, 64, MeshShape(2, 1, 4), "float32"))
    tokens = 32 * 197 * 768 * 4  # bytes of one device's images, in float32
    cut = 12 * (4 * 768 * 768 + 2 * 768 * 3072 + 3 * 768 + 3072)  # kernels, and biases of outputs that are cut
    gradients = 4 * (86_567_656 - cut * 3 // 4)
    assert found == {
        "sent per step, gradients, all-reduce along data and fsdp": f"{gradients / 1e6:,.1f} MB",
        "sent per step, sums of layers, all-reduce along tensor": f"{48 * tokens / 1e6:,.1f} MB",
        "sent per step, packed layers, all-to-all along tensor": f"{kernels / 1e6:,.1f} MB",
        "sent per step, packed layers, all-gather along tensor": f"{12 * 3 * 768 * 4 / 1e3:,.1f} kB",
    }

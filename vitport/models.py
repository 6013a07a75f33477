"""Models by name or from weights, in either framework."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from vit_spec import Config, VitportError
from vit_spec import list_models as registered
from vit_spec.frameworks import require_torch

if TYPE_CHECKING:
    import vit_jax
    import vit_torch
    from conversion import Checkpoint


def list_models(pattern: str = "*") -> list[str]:
    """Names that :func:`create_model` takes; they are timm's.

    >>> vitport.list_models("vit_small*dinov2")
    ['vit_small_patch14_dinov2', 'vit_small_patch14_reg4_dinov2']

    Args:
        pattern: a shell pattern, or a part of the name.

    Returns:
        The names in the order of the registry; ``vit_spec.get_model(name)`` has a model's config and preprocessing.
    """
    return [model.name for model in registered(pattern)]


@overload
def create_model(
    name_or_config: str | Config | None = None,
    *,
    weights: str | Path | Checkpoint | None = None,
    framework: Literal["torch"] = "torch",
    **options: Any,
) -> vit_torch.VisionModel[Any]: ...
@overload
def create_model(
    name_or_config: str | Config | None = None,
    *,
    weights: str | Path | Checkpoint | None = None,
    framework: Literal["jax"],
    **options: Any,
) -> vit_jax.VisionModel[Any]: ...
def create_model(
    name_or_config: str | Config | None = None,
    *,
    weights: str | Path | Checkpoint | None = None,
    framework: Literal["torch", "jax"] = "torch",
    **options: Any,
) -> vit_torch.VisionModel[Any] | vit_jax.VisionModel[Any]:
    """A Vision Transformer in training mode: a ``torch.nn.Module`` or a ``flax.nnx.Module``.

    >>> model = vitport.create_model("vit_small_patch16_224", num_classes=10, drop_path_rate=0.1)
    >>> model = vitport.create_model(weights="deit.safetensors", framework="jax", image_size=384, in_channels=1)

    PyTorch's model takes images (B, C, H, W), JAX's (B, H, W, C); both are the same function of the same weights.

    Args:
        name_or_config: a name (:func:`list_models`) or a config; may be left out where the weights say what they are.
        weights: a file or folder of any format that vitport reads, ``hf://owner/name``, or what :func:`load` gave;
            ``None`` initialises at random.
        framework: of the model.
        options: any field of the config (a ViT's is ``ViTConfig``), also under timm's name for it (``img_size``,
            ``in_chans``, ``global_pool``); weights are fitted to it where they can be. Besides, ``dtype`` (of a model
            in PyTorch), or ``rngs``, ``dtype`` and ``param_dtype`` (in JAX): see ``create_model`` in ``vit_torch`` and
            ``vit_jax``.

    Raises:
        VitportError: for an unknown name, fields that contradict each other, weights that do not fit, or a framework
            that is not installed.
    """
    if framework == "torch":
        require_torch('vitport.create_model(framework="torch")')
        import vit_torch

        return vit_torch.create_model(name_or_config, weights=weights, **options)
    if framework == "jax":
        import vit_jax

        return vit_jax.create_model(name_or_config, weights=weights, **options)
    raise VitportError(f"framework={framework!r} is unknown: choose torch or jax.")

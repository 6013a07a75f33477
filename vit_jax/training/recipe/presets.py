"""Recipes by name: published ones, with their source and its accuracy, and two small ones of our own."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace

from vit_jax.training.recipe.config import CheckpointOptions, ModelOptions, TrainConfig
from vit_jax.training.recipe.data import Augmentation, Data, RandAugment
from vit_jax.training.recipe.finetuning import FINETUNE, LINEAR_PROBE
from vit_jax.training.recipe.recipe import Loss, Optimizer, Recipe, Schedule
from vit_spec import VitportError

_IMAGENET = 1_281_167
"""Training images of ImageNet-1k, to turn the papers' epochs into steps."""


@dataclass(frozen=True)
class Preset:
    """A configuration, for data that the user names."""

    name: str
    config: TrainConfig
    source: str
    reaches: str
    """Top-1 accuracy that the source reports, or docs/training.md for our own."""
    differs: str = ""
    """Differences from the source."""


def _epochs(count: int, batch: int) -> int:
    return round(count * _IMAGENET / batch)


_DINOV3 = ModelOptions(pool="token_avg")
"""The authors' classifier reads the class token and the mean of the patches side by side."""
_INCEPTION = Augmentation(crop="random_resized", scale=(0.05, 1.0))
_DEIT_AUGMENTATION = Augmentation(randaugment=RandAugment(2, "increasing", 9.0, 0.5, 0.5), erasing=0.25)
_DEIT_LOSS = Loss("softmax", smoothing=0.1, mixup=0.8, cutmix=1.0)


def _digits(name: str, model: ModelOptions, *, pad: int, reaches: str) -> Preset:
    """A small model of patches of 2 pixels, trained on scikit-learn's digits.

    Args:
        pad: pixels by which images are shifted at most.
    """
    return Preset(
        name,
        TrainConfig(
            replace(model, patch_size=2, in_channels=1, drop_path_rate=0.1, initialization="width", crop_fraction=1.0),
            Data("digits", augment=Augmentation("shift", pad=pad, flip=0.0)),
            Recipe(
                Optimizer("adamw", weight_decay=0.1, clip_norm=1.0),
                Schedule("cosine", peak=2e-3, warmup=50),
                Loss("softmax", smoothing=0.1),
            ),
            keep=CheckpointOptions(every=500),
            batch=64,
            epochs=60,
            log_every=100,
        ),
        "docs/training.md",
        f"{reaches} of scikit-learn's digits",
    )  # fmt: skip


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "finetune",
            FINETUNE,
            "He et al. 2022, Masked autoencoders are scalable vision learners, table 9; give weights of any model",
            "docs/reports/finetune.md",
            "batch 32, 10 epochs, a head that learns ten times as fast, clipping; no mixup, CutMix and RandAugment",
        ),
        Preset(
            "linear_probe",
            LINEAR_PROBE,
            "He et al. 2022, table 10; give weights of any model",
            "docs/reports/finetune.md",
            "Adam in place of LARS, batch 64, 20 epochs, no batch norm before the head, no random crops",
        ),
        Preset(
            "dinov3_finetune",
            replace(FINETUNE, model=_DINOV3),
            "the head of facebookresearch/dinov3, hub/classifiers.py, on the preset finetune; give its weights",
            "docs/reports/finetune.md",
            "all but the head is the preset finetune's: the authors release no recipe for small data",
        ),
        Preset(
            "dinov3_linear_probe",
            replace(LINEAR_PROBE, model=_DINOV3),
            "the head of facebookresearch/dinov3, hub/classifiers.py, on the preset linear_probe; give its weights",
            "docs/reports/finetune.md",
            "all but the head is the preset linear_probe's, in place of their search over learning rates",
        ),
        Preset(
            "big_vision_s16_90ep",
            TrainConfig(
                ModelOptions("vit_small_patch16_224", pool="avg", representation_size=384, activation="gelu_tanh",
                             initialization="big_vision", positions="sincos2d", crop_fraction=224 / 256),
                Data("imagenet", augment=Augmentation(
                    scale=(0.05, 1.0), randaugment=RandAugment(2, "original", 10.0))),
                Recipe(
                    # Their 1e-4 multiplies the schedule, whose peak is 1; ours multiplies the learning rate.
                    Optimizer("adamw", weight_decay=1e-4 / 1e-3, clip_norm=1.0, frozen=("pos_embed",)),
                    Schedule("cosine", peak=1e-3, warmup=10_000),
                    Loss("softmax", mixup=0.2),
                ),
                batch=1024,
                epochs=90,
                precision="bfloat16",
            ),
            "Beyer, Zhai, Kolesnikov 2022, Better plain ViT baselines for ImageNet-1k; big_vision's vit_s16_i1k.py",
            "76.5 % on ImageNet-1k",
            "trains on all training images, where they hold out 1 %; RandAugment's contrast pivots on the image's "
            "mean, where theirs pivots on 196; the first moment is float32, where theirs is bfloat16",
        ),
        Preset(
            "deit_s",
            TrainConfig(
                ModelOptions("deit_small_patch16_224", drop_path_rate=0.1, initialization="deit"),
                Data("imagenet", repeats=3, augment=_DEIT_AUGMENTATION),
                Recipe(
                    Optimizer("adamw", weight_decay=0.05),
                    Schedule("cosine", peak=1e-3, final=1e-5, warmup=_epochs(5, 1024)),
                    _DEIT_LOSS,
                ),
                batch=1024,
                epochs=300,
                precision="bfloat16",
            ),
            "Touvron et al. 2021, Training data-efficient image transformers, table 9; defaults of their main.py",
            "79.8 % on ImageNet-1k",
            "the learning rate changes every step, where theirs changes every epoch; the warm-up starts at 0, where "
            "theirs starts at 1e-6",
        ),
        Preset(
            "deit3_s",
            TrainConfig(
                ModelOptions("deit3_small_patch16_224", drop_path_rate=0.1, layer_scale=1e-4, initialization="deit"),
                Data("imagenet", repeats=3, augment=Augmentation(three_augment=True, jitter=0.3)),
                Recipe(
                    # Their loss is the mean over 1,000 classes, ours the sum: clip_norm 1 and epsilon 1e-8 scale.
                    Optimizer("lamb", weight_decay=0.05, clip_norm=1.0 * 1000, epsilon=1e-8 * 1000),
                    Schedule("cosine", peak=4e-3, final=1e-5, warmup=_epochs(5, 2048)),
                    Loss("sigmoid", binary=True, mixup=0.8, cutmix=1.0),
                ),
                batch=2048,
                epochs=800,
                precision="bfloat16",
            ),
            "Touvron, Cord, Jégou 2022, DeiT III: Revenge of the ViT, tables 1 and 2; README_revenge.md",
            "81.4 % on ImageNet-1k",
            "stochastic depth rises from 0 to 0.1, where theirs is 0.05 in every block; the learning rate changes "
            "every step, where theirs changes every epoch; the warm-up starts at 0, where theirs starts at 1e-6",
        ),
        Preset(
            "augreg_finetune",
            TrainConfig(
                ModelOptions("vit_small_patch16_224", image_size=384, resize="squash", crop_fraction=1.0),
                Data("imagenet", augment=_INCEPTION),
                Recipe(
                    Optimizer("sgd", beta1=0.9, weight_decay=0.0, clip_norm=1.0),
                    Schedule("cosine", peak=0.03, warmup=500),
                    Loss("softmax"),
                ),
                batch=512,
                steps=20_000,
                precision="bfloat16",
            ),
            "Steiner et al. 2022, How to train your ViT?, section 3.4 and appendix; give the ImageNet-21k weights as "
            "--weights",
            "83.8 % on ImageNet-1k at 384 pixels, from AugReg ImageNet-21k S/16",
            "the paper takes the better of learning rates 0.03 and 0.01; trains on all training images, where they "
            "hold out 1 %",
        ),
        Preset(
            "swin_t",
            TrainConfig(
                ModelOptions("swin_tiny_patch4_window7_224", drop_path_rate=0.2, crop_fraction=224 / 256),
                Data("imagenet", augment=_DEIT_AUGMENTATION),
                Recipe(
                    Optimizer("adamw", weight_decay=0.05, clip_norm=5.0),
                    Schedule("cosine", peak=1e-3, final=1e-5, warmup=_epochs(20, 1024)),
                    _DEIT_LOSS,
                ),
                batch=1024,
                epochs=300,
                precision="bfloat16",
            ),
            "Liu et al. 2021, Swin Transformer, section 4.1 and appendix A2.1; config.py of their code",
            "81.3 % on ImageNet-1k",
            "the warm-up starts at a learning rate of 0, where theirs starts at 1e-6",
        ),
        _digits("digits", ModelOptions("vit_tiny_patch16_224", image_size=8, embed_dim=48, depth=4, num_heads=4), pad=1,
                reaches="97 %"),
        _digits("swin_digits", ModelOptions("swin_tiny_patch4_window7_224", image_size=16, embed_dim=20, depths=(2, 2),
                                            num_heads=(2, 4), window_sizes=4), pad=2, reaches="98.9 %"),
        Preset(
            "fashion_mnist",
            TrainConfig(
                ModelOptions("vit_tiny_patch16_224", image_size=28, patch_size=4, in_channels=1, embed_dim=64, depth=4,
                             num_heads=4, initialization="width", crop_fraction=1.0),
                Data("fashion_mnist", augment=Augmentation("none", flip=0.5)),
                Recipe(
                    Optimizer("muon", beta1=0.95, weight_decay=0.05, clip_norm=1.0),
                    Schedule("cosine", peak=5e-3, warmup=300),
                    Loss("softmax"),
                ),
                keep=CheckpointOptions(every=938),
                batch=64,
                epochs=16,
                log_every=469,
            ),
            "our own; give the folder of Debian's dataset-fashion-mnist as --data",
            "90 % of Fashion-MNIST",
        ),
    )
}  # fmt: skip


def get_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        VitportError: for an unknown name; the message lists the known ones.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise VitportError(f"No preset is named {name!r}: {hint}choose one of {', '.join(PRESETS)}.")
    return PRESETS[name]

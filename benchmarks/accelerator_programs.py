"""The steps that :mod:`benchmarks.accelerators` compiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.fleets import MODELS, NAMES, compiled_fleets, config_of
from vit_jax.training.recipe.config import ModelOptions, TrainConfig
from vit_jax.training.recipe.execution import AttentionKernel, MeshShape, Precision, Remat, mesh_words
from vit_jax.training.recipe.recipe import Recipe
from vit_jax.training.scaling import CHIPS, Step, collectives, rank
from vit_jax.training.scaling.step import memory_bytes
from vit_spec import block_sizes


@dataclass(frozen=True)
class Program:
    """A step in the table."""

    model: str
    topology: str
    batch: int
    mesh: MeshShape
    precision: Precision = "bfloat16"
    remat: Remat = "auto"
    scan: bool = True
    attention: AttentionKernel | None = None
    accumulation: int = 1
    gradient_sum: Precision = "bfloat16"
    parallel: Literal["jit", "pmap"] = "jit"

    @property
    def name(self) -> str:
        """Its place in the file and in patterns."""
        return " ".join([self.model, self.topology, str(self.batch), mesh_words(self.mesh), *self.words])

    @property
    def classes(self) -> int:
        """Of its head: a thousand for a model that comes without one."""
        return config_of(self.model).num_classes or 1000

    @property
    def words(self) -> list[str]:
        """What it does not leave to the defaults."""
        words = [self.precision] if self.precision != "bfloat16" else []
        words += [f"remat {self.remat}"] if self.remat != "auto" else []
        words += [] if self.scan else ["unrolled"]
        words += [self.attention] if self.attention is not None else []
        words += [f"accumulation {self.accumulation}"] if self.accumulation > 1 else []
        words += ["float32 sums"] if self.gradient_sum == "float32" else []
        return words + (["pmap"] if self.parallel == "pmap" else [])

    @property
    def kernel(self) -> AttentionKernel:
        """Where none is named, cuDNN's or the fused one, also on TPUs, where ``auto`` takes flash."""
        if self.attention is not None:
            return self.attention
        whole = all(each.keys == each.tokens for each in block_sizes(config_of(self.model)))
        on_gpu = CHIPS[self.chip].cudnn
        return "cudnn" if on_gpu and whole and self.precision == "bfloat16" else "fused"

    @property
    def step(self) -> Step:
        """For :mod:`vit_jax.training.scaling`."""
        by_jit = self.parallel == "jit"
        remat = ("dots" if self.scan and by_jit else "none") if self.remat == "auto" else self.remat
        model = config_of(self.model).replace(num_classes=self.classes)
        return Step(
            model,
            self.batch,
            self.mesh,
            self.precision,
            remat,
            self.accumulation,
            self.kernel,
            self.gradient_sum if by_jit else "float32",
            self.scan,
        )

    @property
    def chip(self) -> str:
        """Its kind."""
        return self.topology.partition(":")[0]

    @property
    def predicted(self) -> float:
        """Bytes of a chip's memory by :mod:`vit_jax.training.scaling`."""
        return memory_bytes(self.step, CHIPS[self.chip].tile)

    @property
    def exchanged(self) -> float:
        """Bytes of its collectives, in the same way."""
        return sum(one.total for one in collectives(self.step))

    @property
    def options(self) -> TrainConfig:
        """Of a run with this step."""
        return TrainConfig(
            ModelOptions(self.model), batch=self.batch, steps=100_000,
            mesh=self.mesh if self.parallel == "jit" else MeshShape(), precision=self.precision,
            remat=self.remat, scan=self.scan, attention=self.kernel, recipe=Recipe(accumulation=self.accumulation),
            gradient_sum=self.gradient_sum, parallel=self.parallel,
        )  # fmt: skip


TINY, SMALL, BASE, LARGE = (f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large"))
HUGE, GIANT = "vit_huge_patch14_224", "vit_giant_patch14_224"
DINO_V3 = "vit_small_patch16_dinov3"
SWIN = "swin_tiny_patch4_window7_224"


def programs() -> list[Program]:
    """The whole table: those of :func:`listed`, then what docs/reports/scaling.md has besides."""
    found = {program.name: program for program in [*listed(), *on_paper()]}
    return list(found.values())


def on_paper() -> Iterator[Program]:
    """The steps that :func:`vit_jax.training.scaling.rank` puts first, on up to 256 chips."""
    for title, name in NAMES.items():
        config, batch = MODELS[title]
        for devices, chip, topology in compiled_fleets():
            for found in rank(config, batch, devices, chip)[:1]:
                step = found.step
                remat: Remat = "full" if step.remat == "full" else "auto"
                kernel = step.attention if step.attention == "flash" else None
                yield Program(
                    name, topology, batch, step.mesh, remat=remat, attention=kernel, accumulation=step.accumulation
                )


def listed() -> list[Program]:
    """Programs chosen by hand."""

    def mesh(data: int, fsdp: int = 1, tensor: int = 1) -> MeshShape:
        return MeshShape(data, fsdp, tensor)

    return [
        Program(TINY, "v5e:2x2", 512, mesh(4)),
        Program(TINY, "v5e:2x2", 512, mesh(4), precision="float32"),
        Program(TINY, "v4:2x2x1", 512, mesh(4)),
        Program(TINY, "v5p:2x2x1", 512, mesh(4)),
        Program(TINY, "v6e:2x2", 512, mesh(4)),
        Program(SMALL, "v5e:2x4", 1024, mesh(8)),
        Program(SMALL, "v5e:2x4", 1024, mesh(8), remat="none"),
        Program(SMALL, "v5e:2x4", 1024, mesh(8), remat="full"),
        Program(SMALL, "v6e:2x4", 1024, mesh(8)),
        Program(BASE, "v5e:4x4", 2048, mesh(4, 4)),
        Program(BASE, "v5e:4x4", 2048, mesh(4, 4), remat="none"),
        Program(BASE, "v5e:4x4", 2048, mesh(4, 4), remat="full"),
        Program(LARGE, "v5e:8x8", 4096, mesh(32, 2)),
        Program(LARGE, "v6e:8x8", 4096, mesh(4, 16), remat="full"),
        Program(LARGE, "v6e:8x8", 4096, mesh(4, 16), remat="dots_no_batch"),
        Program(SWIN, "v5e:2x4", 1024, mesh(8)),
        Program(SMALL, "h100:1x8", 1024, mesh(8), remat="none"),
        Program(SMALL, "a100:1x8", 1024, mesh(8), remat="none"),
        Program(BASE, "h100:2x8", 2048, mesh(2, 8)),
        Program(LARGE, "h100:1x8", 512, mesh(2, 4)),
        Program(LARGE, "b200:1x8", 1024, mesh(8), remat="none"),
        Program(TINY, "h100:1x4", 512, mesh(4), precision="float32", remat="none"),
        Program(SMALL, "h100:1x8", 1024, mesh(8), remat="full"),
        Program(BASE, "h100:1x8", 1024, mesh(2, 2, 2), remat="none"),
        Program(BASE, "h100:1x8", 1024, mesh(4, 1, 2), remat="none"),
        Program(BASE, "a100:1x8", 1024, mesh(1, 8), remat="full"),
        Program(BASE, "v6e:2x4", 1024, mesh(4, 1, 2)),
        Program(BASE, "v5e:2x4", 512, mesh(1, 8)),
        Program(BASE, "h100:1x8", 4096, mesh(8)),
        Program(BASE, "h100:8x8", 4096, mesh(16, 4)),
        Program(LARGE, "h100:1x8", 4096, mesh(8)),
        Program(LARGE, "h100:8x8", 4096, mesh(16, 4)),
        Program(HUGE, "h100:1x8", 4096, mesh(8), accumulation=4),
        Program(HUGE, "h100:8x8", 4096, mesh(16, 4)),
        Program(GIANT, "h100:8x8", 4096, mesh(16, 4)),
        Program(LARGE, "h100:1x8", 512, mesh(2, 4), scan=False),
        Program(LARGE, "h100:1x8", 512, mesh(2, 4), scan=False, remat="dots"),
        Program(LARGE, "h100:1x8", 4096, mesh(8), scan=False, remat="dots"),
        Program(LARGE, "h100:8x8", 4096, mesh(16, 4), scan=False),
        Program(LARGE, "h100:8x8", 4096, mesh(64), scan=False),
        Program(LARGE, "h100:32x8", 4096, mesh(16, 16)),
        Program(LARGE, "v5e:16x16", 4096, mesh(32, 8)),
        Program(LARGE, "v5e:16x16", 4096, mesh(4, 64)),
        Program(LARGE, "v5e:16x16", 4096, mesh(1, 256)),
        Program(SMALL, "h100:1x8", 1024, mesh(8)),
        Program(HUGE, "h100:2x8", 1024, mesh(2, 8), remat="full"),
        Program(GIANT, "b200:2x8", 1024, mesh(2, 8), remat="full"),
        Program(SWIN, "h100:1x8", 1024, mesh(8), remat="none"),
        Program(TINY, "v5e:2x2", 512, mesh(4), gradient_sum="float32"),
        Program(TINY, "v5e:2x2", 512, mesh(2, 2), gradient_sum="float32"),
        Program(TINY, "v5e:2x2", 512, mesh(2, 2)),
        Program(TINY, "h100:1x4", 512, mesh(4), gradient_sum="float32", remat="none"),
        Program(TINY, "h100:1x4", 512, mesh(4), parallel="pmap"),
        Program(TINY, "v5e:2x2", 512, mesh(4), parallel="pmap"),
        Program(DINO_V3, "v5e:2x2", 256, mesh(4)),
        Program(DINO_V3, "h100:1x4", 256, mesh(4), remat="none"),
        Program(TINY, "v5e:2x2", 512, mesh(4), attention="flash"),
        Program(SMALL, "v5e:2x4", 1024, mesh(8), attention="flash"),
        Program(LARGE, "v5e:16x16", 4096, mesh(4, 64), attention="flash"),
        Program(LARGE, "v6e:8x8", 4096, mesh(4, 16), remat="full", attention="flash"),
        Program(LARGE, "v6e:8x8", 4096, mesh(4, 16), attention="flash"),
        Program(DINO_V3, "v5e:2x2", 256, mesh(4), attention="flash"),
    ]

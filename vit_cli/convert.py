"""``vitport convert``: weights from one format to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro

from vit_cli.proof import prove
from vit_cli.reading import FileOptions, ImageSize, WindowSize
from vit_cli.terminal import progress, say
from vit_spec import VitportError, count_parameters
from vit_spec.swin.resizing import OffsetResize
from vit_spec.vit.config import Activation, PositionResize

if TYPE_CHECKING:
    from conversion import Changes, Checkpoint


@dataclass(frozen=True)
class Changing:
    """What is changed on the way; each change is printed, and kept in the record beside the weights."""

    image_size: Annotated[
        ImageSize,
        tyro.conf.arg(
            help="Pixels, a side or height and width, to resize the tables of positions for; or a fact, where nothing "
            "else says the size of a table that is not square."
        ),
    ] = None
    patch_size: Annotated[
        int | None,
        tyro.conf.arg(metavar="PIXELS", help="Side of a patch, to resize the patch kernel for by pseudo-inverse."),
    ] = None
    window_size: Annotated[
        WindowSize,
        tyro.conf.arg(
            help="Side, or height and width, of a Swin Transformer's windows; or of each stage, as in 7,7,14x7,7."
        ),
    ] = None
    resize: Annotated[
        PositionResize | OffsetResize | None,
        tyro.conf.arg(help="Method for the tables of positions, instead of the one of the weights' family."),
    ] = None
    positions: Annotated[
        Literal["keep", "prefix", "patch"],
        tyro.conf.arg(help="Rows of the position table: for class and distillation token too, or for patches alone."),
    ] = "keep"
    num_classes: Annotated[
        int | None,
        tyro.conf.arg(
            name="classes", metavar="N", help="Classes of the head; if not the file's, --head says what to do."
        ),
    ] = None
    head: Annotated[
        Literal["keep", "drop", "zero"] | None,
        tyro.conf.arg(help="Keep the head, drop it for features, or put zeros for --classes in its place."),
    ] = None
    fold: Annotated[
        tuple[Literal["layer-scale", "qk-scale"], ...],
        tyro.conf.arg(help="Factors to multiply into the layers beside them, for formats that have no place for them."),
    ] = ()
    periods: Annotated[
        Literal["keep", "theta"],
        tyro.conf.arg(help="Take theta's periods of rotary positions in place of a file's own, for formats without."),
    ] = "keep"
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16", "float64"] | None,
        tyro.conf.arg(help="Cast every tensor to the nearest value of this type."),
    ] = None
    activation: Annotated[
        Literal["keep", "erf", "tanh"] | Activation | None,
        tyro.conf.arg(
            help="The form of GELU to write (keep, erf, tanh), where the destination's readers run the other one by "
            "default; or a fact, the source's own activation, which is kept."
        ),
    ] = None

    def changes(self) -> Changes:
        """The same as the converter takes it."""
        import conversion

        choice = "keep" if self.facts else self.activation
        return conversion.Changes(**{**vars(self), "activation": choice})

    @property
    def facts(self) -> dict[str, Any]:
        """What the options state about the source."""
        return {"activation": self.activation} if self.activation in get_args(Activation) else {}


def convert(
    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")],
    destination: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DST")],
    *,
    to: Annotated[str, tyro.conf.arg(metavar="FORMAT")],
    overwrite: bool = False,
    verify: bool = False,
    certificate: Annotated[str | None, tyro.conf.arg(metavar="FILE")] = None,
    against: Annotated[str | None, tyro.conf.arg(metavar="MODULE:FUNCTION")] = None,
    reading: FileOptions,
    changing: tyro.conf.OmitArgPrefixes[Changing],
) -> int:
    """Convert weights to another format.

    Args:
        source: File, folder or work directory of weights, here or in a bucket (gs://, s3://).
        destination: file or folder to write, here or in a bucket.
        to: Format to write, such as timm or flax; an unknown one lists them all.
        overwrite: Replace the destination if it is a file of weights, or a folder of nothing but what FORMAT writes.
        verify: Run source and result side by side in both frameworks, and write a certificate; status 1 where any
            block differs by more than rounding.
        certificate: File for --verify to write; DST.certificate.json if not given.
        against: Your own PyTorch module, for --verify to compare with: FUNCTION returns it, in evaluation mode and with
            the weights of SRC loaded. Your code is run.
    """
    import conversion
    from conversion.destination import check_writable

    if certificate is not None and not verify:
        raise VitportError(f"--certificate {certificate} needs --verify, which writes it: add --verify.")
    if against is not None and not verify:
        raise VitportError(f"--against {against} is what --verify compares with: add --verify.")
    if verify and reading.rename is not None and against is None:
        raise VitportError(
            "--verify has nothing but your own rules to compare with: name your module with --against "
            "MODULE:FUNCTION, which is then run."
        )
    changes = changing.changes()
    options = {**reading.options, "facts": {**reading.facts, **changing.facts}}
    if verify:
        from vit_parity import check_verifiable

        stated: dict[str, Any] = {"image_size": changes.image_size}
        check_verifiable(changes, lambda: conversion.load(source, if_unstated=stated, **options))
        certificate = certificate or f"{destination.rstrip('/')}.certificate.json"
        check_writable(certificate, sources=(source, destination), ending=".json")
    with progress("Writing") as told:
        done = conversion.convert(
            source, destination, to=to, changes=changes, overwrite=overwrite, progress=told, **options
        )
    say(f"read {source}: {_origins(done.source)}")
    for note in (*done.source.provenance.notes, *done.notes):
        say(f"note: {note}")
    written = done.result
    size = count_parameters(written.config) / 1e6
    form = written.provenance.format
    say(f"wrote {destination}: {len(written.params)} tensors, {size:.2f} M parameters, format {form}")
    say(f"sha256 {written.provenance.sha256}")
    if against is not None:
        say(f"note: running {against}, which is your own code")
    return 0 if certificate is None else prove(done, certificate, against)


def _origins(checkpoint: Checkpoint) -> str:
    """The facts that no shape shows, and where they are from."""
    from conversion.identify.family import identifier

    asked = identifier(checkpoint.config.family).NEVER_GUESSED
    values, origins = checkpoint.config.to_dict(), checkpoint.provenance.origins
    facts: dict[str, list[str]] = {}
    for name in asked:
        facts.setdefault(origins.get(name, "nowhere: the default"), []).append(f"{name} {values[name]}")
    return "; ".join(f"{', '.join(found)} (from {origin})" for origin, found in facts.items())

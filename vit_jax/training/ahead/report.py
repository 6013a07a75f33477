"""What a compiled program costs, for people and as JSON, as ``--on`` prints it."""

from __future__ import annotations

from typing import Any

from vit_jax.training.ahead.compile import Compiled
from vit_jax.training.ahead.roofline import Link, Roofline
from vit_jax.training.run.plan import program_words
from vit_spec import count_parameters


def facts(compiled: Compiled, found: Roofline) -> dict[str, str]:
    """Name → value, in the order to print them."""
    memory, topology = compiled.memory, compiled.topology
    mesh = ", ".join(f"{axis} {size}" for axis, size in compiled.mesh.shape.items())
    hosts = f"{topology.hosts} host" + ("s" if topology.hosts > 1 else "")
    return {
        "chips": f"{topology.words} on {hosts}, none of them here: compiled in "
        f"{compiled.seconds:.0f} s",
        "parameters": f"{count_parameters(compiled.model):,}",
        "mesh": mesh,
        "program": program_words(compiled.about),
        "memory of a chip, state": gigabytes(memory.state),
        "memory of a chip, temporaries": gigabytes(memory.temporaries),
        "memory of a chip, results and code": gigabytes(memory.results + memory.code),
        "memory of a chip, left": f"{gigabytes(memory.left)} of {gigabytes(memory.limit)}",
        "operations of a chip": f"{found.work.flops:.3e} in matrix products, {milliseconds(found.compute)} at its peak",
        "bytes of a chip": f"{gigabytes(found.work.bytes)} read and written, {milliseconds(found.memory)} at its "
        "memory's bandwidth",
        **{_link_name(link): _link_value(link) for link in found.links},
        "roofline": f"compute {milliseconds(found.compute)}, memory {milliseconds(found.memory)}, links "
        f"{milliseconds(found.exchanged)}: limited by {found.limit}",
        "time": f"{milliseconds(found.seconds)}, {compiled.about['batch'] / found.seconds:,.0f} images/s, MFU "
        f"{found.mfu:.0%}, as assumed in docs/reports/scaling.md",
    }  # fmt: skip


def values(compiled: Compiled, found: Roofline) -> dict[str, Any]:
    """The same as JSON values, in bytes and seconds."""
    memory, topology = compiled.memory, compiled.topology
    return {
        "topology": topology.name,
        "chip": topology.chip.name,
        "chips": len(topology.devices),
        "hosts": topology.hosts,
        "parameters": count_parameters(compiled.model),
        "mesh": dict(compiled.mesh.shape),
        **compiled.about,
        "compile_seconds": compiled.seconds,
        "memory": {
            "state": memory.state,
            "temporaries": memory.temporaries,
            "results": memory.results,
            "code": memory.code,
            "limit": memory.limit,
            "left": memory.left,
        },
        "flops": found.work.flops,
        "bytes": found.work.bytes,
        "collectives": [
            {
                "kind": link.kind,
                "axes": list(link.axes),
                "asynchronous": link.asynchronous,
                "count": link.count,
                "bytes": link.bytes,
                "seconds": link.seconds,
            }
            for link in found.links
        ],
        "roofline": {
            "compute_seconds": found.compute,
            "memory_seconds": found.memory,
            "links_seconds": found.exchanged,
            "limit": found.limit,
            "step_seconds": found.seconds,
            "mfu": found.mfu,
        },
    }


def gigabytes(size: float) -> str:
    """In powers of ten."""
    return f"{size / 1e9:,.2f} GB"


def milliseconds(seconds: float) -> str:
    """In three digits or more."""
    return f"{seconds * 1e3:,.0f} ms" if seconds >= 0.1 else f"{seconds * 1e3:.3g} ms"


def _link_name(link: Link) -> str:
    along = " and ".join(link.axes)
    return f"{link.kind} along {along}, {'beside kernels' if link.asynchronous else 'alone'}"


def _link_value(link: Link) -> str:
    return f"{link.count:,} times, {link.bytes / 1e6:,.1f} MB, {milliseconds(link.seconds)}"

"""The random draws of PyTorch, recorded or replaced."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import numpy as np

from vit_parity.porting.masks import Masks, Source
from vit_spec import VitportError


@contextmanager
def drawing(recorded: Masks | None, source: Source | None) -> Iterator[None]:
    """Record what is drawn, or draw from a source.

    Functions are replaced where ``torch`` keeps them; layers of ``torch.nn`` and of packages look them up there.
    """
    import torch
    from torch.nn import functional

    def drawn(draw: Callable[[], Any], like: Any, keep: float | None) -> Any:
        """A mask, or uniform numbers where ``keep`` is ``None``, in the shape and dtype of a tensor."""
        if source is None:
            made = draw()
            assert recorded is not None
            kept = made.detach().cpu()
            recorded.drawn.append(kept.double().numpy() if keep is None else (kept != 0).numpy())
            return made
        shape = tuple(like.shape)
        at = source.next()
        found = source.masks.uniform(at, shape) if keep is None else source.masks.mask(at, shape, keep)
        return torch.as_tensor(np.ascontiguousarray(found)).to(like)

    def dropping(own: Callable[..., Any], axes: int) -> Callable[..., Any]:
        """Dropout whose mask is the same along the last axes."""

        def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
            if not training or p == 0:
                return input
            ones = input.detach().new_ones(input.shape)
            whole = (..., *[slice(0, 1)] * axes)
            mask = drawn(lambda: own(ones, p, True)[whole], ones[whole], 1 - p)
            mask = (mask != 0).to(input)
            scaled = mask / (1 - p) if p < 1 else mask
            return input.mul_(scaled) if inplace else input * scaled

        return dropout

    def refused(name: str, own: Callable[..., Any]) -> Callable[..., Any]:
        def dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
            if training and p:
                raise VitportError(f"The masks of {name} are not recorded: replace it, or set its rate to 0.")
            return own(input, p, training, inplace)

        return dropout

    own_attention = functional.scaled_dot_product_attention

    def attention(
        query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
        scale: float | None = None, enable_gqa: bool = False
    ) -> Any:  # fmt: skip
        if not dropout_p:
            return own_attention(query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa)
        if enable_gqa:
            key, value = (it.repeat_interleave(query.shape[-3] // it.shape[-3], -3) for it in (key, value))
        scores = query @ key.mT * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            scores = scores.masked_fill(~torch.ones_like(scores, dtype=torch.bool).tril(), -torch.inf)
        if attn_mask is not None:
            kept = attn_mask.dtype == torch.bool
            scores = scores.masked_fill(~attn_mask, -torch.inf) if kept else scores + attn_mask
        return functional.dropout(scores.softmax(-1), dropout_p) @ value

    own_bernoulli, own_in_place = torch.bernoulli, torch.Tensor.bernoulli_
    own_rand, own_rand_like = torch.rand, torch.rand_like

    def bernoulli(input: Any, p: float | None = None, **kwargs: Any) -> Any:
        one = p if p is not None else float(input.double().mean()) if input.numel() else 0.5
        return drawn(lambda: own_bernoulli(input, **({} if p is None else {"p": p}), **kwargs), input, one)

    def in_place(self: Any, p: Any = 0.5, **kwargs: Any) -> Any:
        return self.copy_(drawn(lambda: own_in_place(self, p, **kwargs), self, float(torch.as_tensor(p).mean())))

    def rand(*size: Any, **kwargs: Any) -> Any:
        if source is None:
            return drawn(lambda: own_rand(*size, **kwargs), None, None)
        shape = torch.empty(*size, **{it: kwargs[it] for it in ("dtype", "device") if it in kwargs})
        return drawn(lambda: None, shape, None)

    changes = [
        patch.object(functional, "dropout", dropping(functional.dropout, 0)),
        *(patch.object(functional, f"dropout{axes}d", dropping(getattr(functional, f"dropout{axes}d"), axes))
          for axes in (1, 2, 3)),
        *(patch.object(functional, name, refused(name, getattr(functional, name)))
          for name in ("alpha_dropout", "feature_alpha_dropout")),
        patch.object(functional, "scaled_dot_product_attention", attention),
        patch.object(torch, "bernoulli", bernoulli),
        patch.object(torch.Tensor, "bernoulli_", in_place),
        patch.object(torch, "rand", rand),
        patch.object(torch, "rand_like", lambda it, **kwargs: drawn(lambda: own_rand_like(it, **kwargs), it, None)),
    ]  # fmt: skip
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(change)
        yield

"""Any ``torch.nn.Module``: hooks see, and on request replace, what goes into each module and comes out of it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from conversion.containers.file_checks import first_line
from vit_parity.frameworks import torch_array
from vit_parity.porting.masks import masks_are_known, of_a_pass
from vit_parity.porting.stages import ROOT, Key, Observed, Parts, Values, unique
from vit_spec import VitportError

Given = Callable[[str, Any], Any]


def _as_is(_: str, leaf: Any) -> Any:
    return leaf


def _nothing(_: Any) -> None:
    pass


class TorchModel:
    """A module with its inputs.

    Args:
        module: in evaluation mode.
        args: positional arguments; arrays become tensors.
        kwargs: keyword arguments.
        title: name of the run in reports.
    """

    def __init__(self, module: Any, args: Sequence[Any], kwargs: Mapping[str, Any], title: str) -> None:
        import torch

        if module.training and not masks_are_known():
            raise VitportError(
                "The PyTorch model is in training mode, where outputs may be random: call model.eval() first, or "
                "compare with masks=True."
            )
        first = next((it for it in module.parameters() if it.is_floating_point()), torch.zeros(()))
        self.title = title
        self.facts = {
            "framework": f"torch {torch.__version__}",
            "dtype": str(first.dtype).removeprefix("torch."),
            "device": str(first.device),
        }
        self.module, self._like = module, first
        self._args, self._kwargs = tuple(args), dict(kwargs)

    def run(
        self, *, wide: bool = False, shake: float = 0.0, forced: Mapping[Key, np.ndarray] | None = None
    ) -> Observed:
        """As :class:`vit_parity.porting.stages.Model` says."""
        import torch

        changed = wide or shake or self.module.training  # statistics of batches move in training mode
        kept = Watched(copy.deepcopy(self.module) if changed else self.module, forced or {})
        with torch.no_grad():
            self.call(kept, wide, shake)
        return Observed(kept.values, kept.kinds)

    def compute(self) -> None:
        """Run the module as it is, for those who watch it."""
        import torch

        args, kwargs = self.inputs(_as_is)
        with torch.no_grad(), _plain_kernels():
            try:
                self.module(*args, **kwargs)
            except Exception as error:
                raise VitportError(f"{self.title} fails on these inputs ({first_line(error)}).") from error

    def call(
        self, watched: Watched, wide: bool, shake: float, given: Given = _as_is, then: Callable[[Any], Any] = _nothing
    ) -> None:
        """Run a module.

        Args:
            watched: what sees its calls; a copy of it, where it is changed.
            wide: as of :meth:`run`.
            shake: the same.
            given: what is made of each tensor among the inputs, by its name.
            then: what is done with the output, while calls are still seen.
        """
        module, rng = watched.module.double() if wide else watched.module, np.random.default_rng(0)
        if shake:
            for tensor in [*module.parameters(), *module.buffers()]:
                if tensor.is_floating_point():
                    tensor.data = shaken_tensor(tensor.data, shake, rng)
        args, kwargs = self.inputs(given, wide=wide, shake=shake, rng=rng)
        with ExitStack() as stack:
            stack.enter_context(_plain_kernels())
            if wide or shake:
                stack.enter_context(_mode(wide, shake, rng))
            stack.enter_context(of_a_pass())
            stack.enter_context(watched.watching())
            try:
                output = module(*args, **kwargs)
            except VitportError:
                raise
            except Exception as error:
                raise VitportError(f"{self.title} fails on these inputs ({first_line(error)}).") from error
            then(output)

    def inputs(
        self, given: Given, *, wide: bool = False, shake: float = 0.0, rng: np.random.Generator | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, with arrays as tensors."""
        import torch
        from torch.utils import _pytree

        dtype, rng = torch.float64 if wide else self._like.dtype, rng or np.random.default_rng(0)
        leaves, tree = _pytree.tree_flatten_with_path((self._args, self._kwargs))
        tensors = [
            given(f"inputs{_pytree.keystr(path[1:])}", self._tensor(leaf, dtype, shake, rng)) for path, leaf in leaves
        ]
        return _pytree.tree_unflatten(tensors, tree)

    @functools.cached_property
    def _modules(self) -> Mapping[str, Any]:
        return dict(self.module.named_modules())

    def parts(self, stage: str) -> Parts:
        """As :class:`vit_parity.porting.stages.Model` says."""
        path = stage.partition("#")[0]
        module = self._modules.get("" if path == ROOT else path)
        if module is None:
            return Parts()
        tensors = {**module._parameters, **module._buffers}
        arrays = {name: torch_array(tensor) for name, tensor in tensors.items() if tensor is not None}
        simple = (bool, int, float, str, tuple)
        return Parts(arrays, {name: value for name, value in vars(module).items() if isinstance(value, simple)})

    def _tensor(self, leaf: Any, dtype: Any, shake: float, rng: np.random.Generator) -> Any:
        import torch

        if isinstance(leaf, np.ndarray) or type(leaf).__module__.startswith("jax"):
            leaf = torch.tensor(np.array(leaf))
        if not isinstance(leaf, torch.Tensor):
            return leaf
        leaf = leaf.to(self._like.device)
        if leaf.is_floating_point():
            leaf = leaf.to(dtype)
            leaf = shaken_tensor(leaf, shake, rng) if shake else leaf
        return leaf


class Watched:
    """A module's calls, seen by hooks.

    Args:
        module: the whole model.
        forced: what a slot holds instead of its own.
    """

    def __init__(self, module: Any, forced: Mapping[Key, np.ndarray]) -> None:
        self.values: Values = {}
        self.kinds: dict[str, str] = {}
        self.module, self._forced = module, forced
        self._seen: dict[Key, int] = {}
        self._open: list[str] = []

    def clear(self) -> None:
        """Forget what was seen."""
        self.values, self._seen = {}, {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on every module; they are removed in the end."""
        handles = []
        try:
            for path, module in self.module.named_modules():
                name = path or ROOT
                handles.append(module.register_forward_pre_hook(self._before(name), with_kwargs=True))
                handles.append(module.register_forward_hook(self._after()))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, name: str) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> Any:
            call = self._called(name)
            self._open.append(call)
            self.kinds[call] = type(module).__name__
            return self._slots((args, kwargs), call, "<")

        return hook

    def _after(self) -> Any:
        def hook(module: Any, args: Any, output: Any) -> Any:
            return self._slots(output, self._open.pop(), ">")

        return hook

    def _called(self, path: str) -> str:
        """The name of a module's next call."""
        return unique(path, "", self._seen)[0]

    def _passed(self, tensor: Any, key: Key) -> Any:
        """What goes on from a slot."""
        self.values[key] = torch_array(tensor).copy()
        return self._replaced(tensor, key)

    def _replaced(self, tensor: Any, key: Key) -> Any:
        import torch

        own = self._forced.get(key)
        return tensor if own is None else torch.tensor(np.array(own)).to(tensor).reshape(tensor.shape)

    def _slots(self, tree: Any, call: str, side: str) -> Any:
        """Keep every tensor of a tree; an object that stands in it twice is one slot, and stays one object."""
        import torch

        count = 0
        replaced: dict[int, Any] = {}

        def slot(leaf: Any) -> Any:
            nonlocal count
            if not isinstance(leaf, torch.Tensor):
                return leaf
            if id(leaf) not in replaced:
                replaced[id(leaf)] = self._passed(leaf, (call, f"{side}{count}"))
                count += 1
            return replaced[id(leaf)]

        return _mapped(tree, slot)


def _mapped(tree: Any, function: Any) -> Any:
    """A tree of tensors with each leaf changed."""
    from torch.utils import _pytree

    return _pytree.tree_map(function, tree)


def shaken_tensor(tensor: Any, by: float, rng: np.random.Generator) -> Any:
    """Every number moved by a random share of at most ``by``."""
    import torch

    noise = torch.tensor(rng.uniform(-by, by, tuple(tensor.shape)))
    return tensor * (1 + noise).to(tensor)


@contextmanager
def _plain_kernels() -> Iterator[None]:
    """Without the fused path of ``nn.TransformerEncoderLayer``, which calls no module."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _mode(wide: bool, shake: float, rng: np.random.Generator) -> Any:
    """Explicit casts to float32 go to float64, and results are moved by a random share."""
    import torch
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if wide:
                args, kwargs = _mapped((args, kwargs), lambda it: torch.float64 if it is torch.float32 else it)
                function = torch.Tensor.double if function is torch.Tensor.float else function
            result = function(*args, **kwargs)
            fresh = shake and isinstance(result, torch.Tensor) and result.is_floating_point()
            if fresh and _computed(result, args):
                return shaken_tensor(result, shake, rng)
            return result

    return Mode()


def _computed(result: Any, args: Any) -> bool:
    """Whether a tensor is a new one, and no view of an argument or constant."""
    import torch
    from torch.utils import _pytree

    given = [leaf for leaf in _pytree.tree_leaves(args) if isinstance(leaf, torch.Tensor)]
    own = result.untyped_storage().data_ptr()
    return bool(given) and all(leaf.untyped_storage().data_ptr() != own for leaf in given)

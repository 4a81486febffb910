"""What an embedding costs: the parameters that take part in it.

A network often carries parts that are not used: the tower of the other sensor, a head, a decoder.
Published counts include them (CROMA: twice as many). Here a parameter counts if it reaches an
operation on the way from pixels to the vector, whatever module it lies in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

from eofm.bench.features import FeatureSource
from eofm.contract.imagery import Imagery


class _Watch(TorchFunctionMode):
    """Notes every parameter that is an argument of an operation while a module computes.

    Outside of modules parameters are looked at for other reasons: where is it, is it unchanged?
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, int] = {}
        self._depth = 0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Watch as long as the context is open."""

        def enter(module: nn.Module, inputs: object) -> None:
            self._depth += 1

        def leave(module: nn.Module, inputs: object, outputs: object) -> None:
            self._depth -= 1

        before = register_module_forward_pre_hook(enter)
        after = register_module_forward_hook(leave, always_call=True)
        try:
            with self:
                yield
        finally:
            before.remove()
            after.remove()

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Iterable[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if self._depth:
            self._note(args)
            self._note((kwargs or {}).values())
        return func(*args, **(kwargs or {}))

    def _note(self, values: Iterable[object]) -> None:
        for value in values:
            if isinstance(value, nn.Parameter):
                self.seen[id(value)] = value.numel()
            elif isinstance(value, list | tuple):
                self._note(value)


def executed_parameters(source: FeatureSource, imagery: Imagery) -> int:
    """Return how many parameters take part when a model embeds an image; 0 without a network.

    Args:
        source: The model.
        imagery: One image is enough.
    """
    watch = _Watch()
    with watch.on():
        source.embed(imagery)
    return sum(watch.seen.values())

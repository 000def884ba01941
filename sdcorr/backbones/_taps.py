"""Read what inner layers of a model put out, and end its forward pass after the last of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from torch import Tensor, nn

from sdcorr.errors import BadRecipe, UnknownName


class _Done(Exception):
    """All layers have been read; nothing after them is needed."""


def read_layers(
    model: nn.Module, layers: Sequence[str], forward: Callable[[], object]
) -> dict[str, Tensor]:
    """Outputs of the named submodules during one forward pass.

    The pass ends as soon as all have been read, by an exception raised inside the last one's
    hook. Cutting off later blocks instead would be wrong for latents whose sides are no
    multiples of 8: diffusers' last kept block would use a stale upsampling size.

    Args:
        model: the model that ``forward`` runs.
        layers: dotted names as in ``model.named_modules()``.
        forward: runs the model once.

    Returns:
        The output of each layer, first element where it is a tuple, in the order of ``layers``.

    Raises:
        UnknownName: the model has no such layer.
        BadRecipe: the forward pass ended without running a layer, as for a list of layers.
    """
    outputs: dict[str, Tensor] = {}
    with ExitStack() as hooks:
        for name in layers:
            hooks.enter_context(_hook(find_layer(model, name), name, outputs, len(set(layers))))
        with suppress(_Done):
            forward()
    if missing := [name for name in layers if name not in outputs]:
        raise BadRecipe(f"the forward pass never runs layer {missing[0]!r}; name one that it runs")
    return {name: outputs[name] for name in layers}


def let_go_unread(
    model: nn.Module, layers: Sequence[str], forward: Callable[[], object]
) -> dict[str, Tensor]:
    """``read_layers``; then the weights of submodules that the pass never ran leave the memory.

    The submodules stay: what follows the last layer still decides how the pass counts its blocks.
    """
    ran: set[nn.Module] = set()
    with ExitStack() as hooks:
        for module in model.modules():
            handle = module.register_forward_pre_hook(lambda module, _: ran.add(module))
            hooks.callback(handle.remove)
        outputs = read_layers(model, layers, forward)
    for module in model.modules():
        if module not in ran:
            for name, weight in list(module.named_parameters(recurse=False)):
                setattr(module, name, nn.Parameter(weight.to("meta"), requires_grad=False))
    return outputs


def find_layer(model: nn.Module, name: str) -> nn.Module:
    """The submodule called ``name``; raises UnknownName with the nearest one."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if name not in modules:
        siblings = [other for other in modules if other and other.count(".") == name.count(".")]
        raise UnknownName(f"layer of {type(model).__name__}", name, siblings)
    return modules[name]


@contextmanager
def _hook(module: nn.Module, name: str, outputs: dict[str, Tensor], wanted: int) -> Iterator[None]:
    def keep(_module: nn.Module, _inputs: Any, output: Any) -> None:
        outputs[name] = output[0] if isinstance(output, tuple) else output
        if len(outputs) == wanted:
            raise _Done

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()

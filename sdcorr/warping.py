"""What a dense flow does to photos: warp one onto the other, colour like places, swap an object."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from sdcorr.colours import lab_to_rgb
from sdcorr.errors import BadImage, BadMask
from sdcorr.flow import Flow, bands, places
from sdcorr.geometry import Grid, Size, whole
from sdcorr.masks import Mask
from sdcorr.segmentation import at_pixels
from sdcorr.types import Image

Pixels = npt.NDArray[np.uint8]

# at a* = 0, a screen can show each b* from -35 to 35 only between these L*
DARK, LIGHT, BLUE_TO_YELLOW = 34.0, 76.0, 35.0
CHECKS, DARKER = 10, 0.9  # squares along the longer side; every other one is darker
FEATHER = 1 / 150  # of the photo's longer side, from the target's pixels to the pasted ones
NEIGHBOURS = 24  # cells that a filled one is made of
SMOOTHING = 2.0  # cells; 0 passes through each match
STIFFNESS = 10.0  # square cells; holds the affine map of few matches back


@dataclass(frozen=True, eq=False)
class Swapped:
    """A photo with another's object in it.

    Args:
        pixels: ``(H, W, 3)`` uint8.
        replaced: ``(H, W)`` float32, share of the pasted object: 0 is the photo as it was.
    """

    pixels: Pixels
    replaced: npt.NDArray[np.float32]


def warp(pixels: Pixels, flow: Flow) -> tuple[Pixels, Mask]:
    """One photo as the other one sees it: each pixel shows what lies at its match.

    Args:
        pixels: ``(H', W', 3)``, the photo that is warped.
        flow: of the other photo, ``(H, W)``, into this one. To warp the source onto the target,
            take the flow from the target to the source.

    Returns:
        ``(H, W, 3)``, bilinear; and ``(H, W)``, where both ways agree, see ``Flow.at``. Elsewhere
        pixels mean nothing.

    Raises:
        BadImage: the photo has not the size of that which the flow leads into.
    """
    _check_size(Size(*pixels.shape[:2]), flow.back.grid, "into")
    photo = _as_floats(pixels)
    warped = np.empty((*flow.grid.image, 3), np.uint8)
    valid = np.empty(flow.grid.image, np.bool_)
    for rows, points in bands(flow.grid.image):
        matches, sure = flow.at(points)
        warped[rows] = _shown(photo, matches).reshape(warped[rows].shape)
        valid[rows] = sure.reshape(valid[rows].shape).numpy()
    return warped, valid


def position_colours(points: Tensor, photo: Size) -> Pixels:
    """A colour for each place of a photo: like colours are like places.

    x goes from blue to yellow (b* of CIELAB), y from dark to light (L*); nothing goes from red to
    green (a* is 0), so that colour-blind readers see the same.

    Args:
        points: ``(N, 2)`` xy pixels of the photo.
        photo: its size.

    Returns:
        ``(N, 3)`` RGB.

    Example:
        >>> corners = torch.tensor([[-0.5, -0.5], [7.5, -0.5], [-0.5, 1.5], [7.5, 1.5]])
        >>> position_colours(corners, Size(2, 8)).tolist()
        [[9, 83, 135], [95, 79, 20], [144, 190, 252], [210, 185, 123]]
    """
    left, right, bottom, top = photo.extent
    x, y = photo.clamp(points).unbind(-1)
    across, down = (x - left) / (right - left), (y - top) / (bottom - top)  # 0 to 1
    lightness = DARK + (LIGHT - DARK) * down
    yellow = BLUE_TO_YELLOW * (2 * across - 1)
    return lab_to_rgb(torch.stack([lightness, torch.zeros_like(x), yellow], dim=-1).numpy())


def photo_colours(photo: Size) -> Pixels:
    """The colour of each pixel's place: ``(H, W, 3)``, see ``position_colours``.

    In squares of a tenth of the longer side, every other one darker: what bends is seen.
    """
    return _painted(photo, photo, None)


def flow_colours(flow: Flow) -> Pixels:
    """The colour that ``photo_colours`` gives to the place that each pixel matches: ``(H, W, 3)``.

    Args:
        flow: of the photo that gets the colours, ``(H, W)``, into the one that gives them.
    """
    return _painted(flow.grid.image, flow.back.grid.image, flow)


def swap_object(
    source: Image, target: Image, flow: Flow, source_mask: Mask, target_mask: Mask
) -> Swapped:
    """The source's object in the place of the target's, along the dense match.

    As the instance swapping of "A Tale of Two Features" (Zhang et al., NeurIPS 2023), where each
    patch of the target's object shows the patch of the source's object that is nearest to it;
    without its refinement by a diffusion model. Here pixels follow a smooth flow: an affine map of
    all matches on which both ways agree, and what they deviate from it, interpolated between them.

    Args:
        source: photo that gives its object.
        target: photo that gets it.
        flow: from the target to the source, made under both masks.
        source_mask: ``(H', W')`` the source's object; what would show beyond it shows its edge.
        target_mask: ``(H, W)`` the target's object. Outside of it no pixel changes.

    Raises:
        BadImage: a photo has not the size of that which the flow leads from or into.
        BadMask: no place of the two objects is matched the same both ways.
    """
    _check_size(source.size, flow.back.grid, "into")
    _check_size(target.size, flow.grid, "from")
    moves, photo = _smooth(flow).moves, _as_floats(source.pixels)
    nearest = _nearest_covered(source_mask)
    pixels = target.pixels.copy()
    share = _feathered(target_mask)
    for rows, points in bands(target.size):
        covered = torch.from_numpy(target_mask[rows].flatten())
        matches = points[covered] + moves.sample(points[covered])
        pasted = _shown(photo, _within(nearest, matches))
        part = share[rows][target_mask[rows]][:, None]
        mixed = part * pasted + (1 - part) * pixels[rows][target_mask[rows]]
        pixels[rows][target_mask[rows]] = np.rint(mixed)
    return Swapped(pixels, share)


def object_mask(cells: Tensor, grid: Grid) -> Mask:
    """The object that cells show: their largest connected region, with its holes.

    Args:
        cells: ``(h*w,)`` bool.
        grid: of these cells.

    Returns:
        ``(H, W)`` bool, at each pixel what its nearest cell is; empty if no cell is.
    """
    from scipy import ndimage

    regions, count = ndimage.label(cells.reshape(grid.shape).numpy())
    if not count:
        return np.zeros(grid.image, np.bool_)
    largest = regions == 1 + np.bincount(regions.flat)[1:].argmax()
    mask: Mask = at_pixels(ndimage.binary_fill_holes(largest), grid)
    return mask


def _check_size(size: Size, grid: Grid, way: str) -> None:
    if size != grid.image:
        raise BadImage(
            f"the flow leads {way} a photo of {tuple(grid.image)} (high x wide), got one of "
            f"{tuple(size)}; the flow to warp A onto B is that from B to A"
        )


def _as_floats(pixels: Pixels) -> Tensor:
    own = np.array(pixels, np.float32, order="C")  # torch takes no read-only and no mirrored array
    return torch.from_numpy(own).permute(2, 0, 1)  # (3, H, W)


def _shown(photo: Tensor, points: Tensor) -> Pixels:
    """What a photo ``(3, H, W)`` shows at points ``(N, 2)``, bilinear: ``(N, 3)``."""
    unit = whole(Size(*photo.shape[1:])).to_unit(points).float()
    shown = F.grid_sample(
        photo[None], unit[None, None], padding_mode="border", align_corners=False
    )  # (1, 3, 1, N)
    pixels: Pixels = shown[0, :, 0].T.round().byte().numpy()
    return pixels


def _painted(photo: Size, places_of: Size, flow: Flow | None) -> Pixels:
    """Colours of the places that each pixel of a photo matches, or of its own place; checked."""
    colours = np.empty((*photo, 3), np.uint8)
    left, _, _, top = places_of.extent
    corner = torch.tensor([left, top], dtype=torch.float64)
    check = max(places_of) / CHECKS
    for rows, points in bands(photo):
        matches = points if flow is None else flow.to_target(points)
        painted = position_colours(matches, places_of)
        odd = ((matches - corner) // check).long().sum(dim=1) % 2 == 1
        painted[odd.numpy()] = np.rint(painted[odd.numpy()] * DARKER)
        colours[rows] = painted.reshape(colours[rows].shape)
    return colours


def _smooth(flow: Flow) -> Flow:
    """The flow made of those cells alone on which both ways agree, for all cells.

    Raises:
        BadMask: they agree on none.
    """
    from scipy.interpolate import RBFInterpolator

    sure = flow.consistent.flatten()
    if not sure.any():
        raise BadMask(
            "no place of the two objects is matched the same both ways, so nothing can be pasted; "
            "check the masks, or use another recipe"
        )
    own = places(flow.grid)
    cells = flow.grid.to_cells(own)
    moves = flow.target.reshape(-1, 2) - own
    centre = cells[sure].mean(dim=0)
    trend = _trend(cells[sure] - centre, moves[sure])
    expected = moves[sure].mean(dim=0) + (cells - centre) @ trend
    rest = RBFInterpolator(
        cells[sure].numpy(), (moves - expected)[sure].numpy(), kernel="linear", degree=0,
        neighbors=min(NEIGHBOURS, int(sure.sum())), smoothing=SMOOTHING,
    )  # fmt: skip
    smooth = own + expected + torch.from_numpy(rest(cells.numpy()))
    return replace(flow, target=smooth.reshape(flow.target.shape))


def _trend(cells: Tensor, moves: Tensor) -> Tensor:
    """Linear part ``(2, 2)`` of how ``(N, 2)`` moves depend on ``(N, 2)`` centred cells.

    By least squares; few cells, that span little, count for little.
    """
    spread = cells.T @ cells + STIFFNESS * torch.eye(2, dtype=cells.dtype)
    slope: Tensor = torch.linalg.solve(spread, cells.T @ (moves - moves.mean(dim=0)))
    return slope


def _nearest_covered(mask: Mask) -> npt.NDArray[np.int32]:
    """Row and column of the covered pixel that is nearest to each pixel: ``(2, H, W)``."""
    from scipy import ndimage

    _, places_of = ndimage.distance_transform_edt(~mask, return_indices=True)
    nearest: npt.NDArray[np.int32] = places_of
    return nearest


def _within(nearest: npt.NDArray[np.int32], points: Tensor) -> Tensor:
    """Points ``(N, 2)`` on the photo; those of pixels that are not covered move to one that is."""
    columns, rows = points.round().long().unbind(-1)
    height, width = nearest.shape[1:]
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    there = torch.from_numpy(nearest[:, rows.numpy(), columns.numpy()]).flip(0).T  # (N, 2) xy
    here = torch.stack([columns, rows], dim=-1)
    return torch.where((there == here).all(dim=-1, keepdim=True), points, there.to(points.dtype))


def _feathered(mask: Mask) -> npt.NDArray[np.float32]:
    """How much of each pixel is replaced, 0 to 1; it rises from the mask's edge inwards."""
    from scipy import ndimage

    if mask.all() or not mask.any():
        return mask.astype(np.float32)
    # the photo's own edge is none of the mask
    inwards = ndimage.distance_transform_edt(np.pad(mask, 1, mode="edge"))[1:-1, 1:-1]
    width = min(max(1.0, FEATHER * max(mask.shape)), float(inwards.max()))
    share: npt.NDArray[np.float32] = np.minimum(inwards / width, 1).astype(np.float32)
    return share

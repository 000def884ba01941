"""A photo found in a turned and cropped copy of itself, without weights.

    python examples/turned_photo.py [PICTURE]

What recipe "sift" is good for: the same thing seen again. The true place of each point is known
here, so the script also prints how far off the matches are.
"""

import math
import sys
from pathlib import Path

import PIL.Image
import torch

import sdcorr

PHOTO = Path(__file__).parents[1] / "assets" / "astronaut.png"
DEGREES = 10.0
BOX = (60, 60, 452, 452)  # left, top, right, bottom of what is kept


def main() -> None:
    """Turn, crop, match, print the errors, and save the picture."""
    photo = PIL.Image.open(PHOTO).convert("RGB")
    turned = photo.rotate(DEGREES, PIL.Image.Resampling.BICUBIC).crop(BOX)
    matches = sdcorr.load("sift").match(photo, turned)
    errors = (matches.target - true_places(matches.source, photo.size)).norm(dim=1)
    print(f"{len(matches)} matches, median error {errors.median():.1f} px of {photo.width}")
    matches.plot().savefig(sys.argv[1] if len(sys.argv) > 1 else "match.jpg")


def true_places(points: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Where (N, 2) pixels of the photo lie after turning about its centre, and cropping."""
    angle = math.radians(DEGREES)
    turn = torch.tensor(
        [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
    ).double()
    center = torch.tensor([(size[0] - 1) / 2, (size[1] - 1) / 2]).double()
    return (points - center) @ turn.T + center - torch.tensor(BOX[:2])


if __name__ == "__main__":
    main()

"""Where are these points of one photo in another?

python examples/match_two_photos.py [PICTURE]

The short version of match_two_photos.ipynb.
"""

import sys
from pathlib import Path

import sdcorr

ASSETS = Path(__file__).parents[1] / "assets"
POINTS = {
    "right eye": [205, 104],
    "left eye": [247, 110],
    "nose": [231, 128],
    "mouth": [228, 148],
    "flag": [30, 180],
    "helmet": [400, 430],  # the other photo has none
}


def main() -> None:
    """Match, print, and save the picture."""
    model = sdcorr.load("sift-hough")  # needs no weights; "sd-dino" compares meaning, not looks
    source = model.encode(ASSETS / "astronaut.png")
    target = model.encode(ASSETS / "hopper.jpg")
    matches = model.match(source, target, POINTS)
    for name, (x, y), sure in zip(POINTS, matches.target, matches.confidence, strict=True):
        print(f"{name:10} at {x:3.0f}, {y:3.0f}, confidence {sure:.2f}")
    matches.plot().savefig(sys.argv[1] if len(sys.argv) > 1 else "match.jpg")


if __name__ == "__main__":
    main()

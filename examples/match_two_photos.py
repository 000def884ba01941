"""Where are these points of one photo in another?

python examples/match_two_photos.py [PICTURE]
"""

import sys
from pathlib import Path

import sdcorr

ASSETS = Path(__file__).parents[1] / "assets"


def main() -> None:
    """Match, print, and save the picture."""
    model = sdcorr.load("sift")  # "sd-dino" finds parts; "sift" needs no weights and finds texture
    source = model.encode(ASSETS / "astronaut.png")
    target = model.encode(ASSETS / "hopper.jpg")
    matches = model.match(source, target)  # confident matches
    for start, end, score in zip(matches.source, matches.target, matches.score, strict=True):
        print(start.tolist(), "->", end.tolist(), f"{score:.3f}")
    matches.plot().savefig(sys.argv[1] if len(sys.argv) > 1 else "match.jpg")


if __name__ == "__main__":
    main()

"""Real annotated pairs, without weights; skipped where the data set is not beside the checkout."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import Tensor

import sdcorr


def keypoints(row: dict[str, str], photo: str) -> Tensor:
    """PF-WILLOW's ten points of photo A or B: ``(10, 2)`` xy pixels."""
    values = [
        [float(row[f"X{photo}{index}"]), float(row[f"Y{photo}{index}"])] for index in range(1, 11)
    ]
    return torch.tensor(values, dtype=torch.float64)


def share_correct(found: Tensor, annotated: Tensor) -> float:
    """Points within 0.1 of the longer side of the target's keypoint box."""
    side = (annotated.amax(dim=0) - annotated.amin(dim=0)).max()
    return ((found - annotated).norm(dim=1) <= 0.1 * side).double().mean().item()


@pytest.fixture(scope="module")
def pairs(shared_data: Path) -> list[tuple[Path, Path, Tensor, Tensor]]:
    """Every 45th of the 900 pairs: two of each of the ten classes."""
    root = shared_data / "PF-WILLOW"
    with (root / "test_pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[::45]
    return [
        (root / row["imageA"], root / row["imageB"], keypoints(row, "A"), keypoints(row, "B"))
        for row in rows
    ]


def test_sift_beats_the_same_position_on_real_pairs(pairs):
    """Both are weak; a wrong frame, scale or axis order would put sift below."""
    model = sdcorr.load("sift", device="cpu")
    encodings = {path: model.encode(path) for pair in pairs for path in pair[:2]}
    sift, same = [], []
    for first, second, source, target in pairs:
        matches = model.match(encodings[first], encodings[second], source)
        sift.append(share_correct(matches.target, target))
        same.append(share_correct(source, target))
    assert len(pairs) == 20
    assert sum(sift) > 1.3 * sum(same)


def test_confident_matches_of_real_pairs_lie_on_both_photos(pairs):
    model = sdcorr.load("sift", device="cpu")
    for first, second, _, _ in pairs[::7]:
        matches = model.match(first, second)
        assert 5 <= len(matches) <= 20
        assert matches.source_image.size.contains(matches.source).all()
        assert matches.target_image.size.contains(matches.target).all()

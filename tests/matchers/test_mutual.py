from __future__ import annotations

import json
from dataclasses import dataclass, fields

import pytest
import torch
from torch import Tensor

from sdcorr.backbones.sift import Sift
from sdcorr.errors import BadRecipe, UnknownName
from sdcorr.fusion import FusedSimilarity, Group, MapUse
from sdcorr.geometry import Grid, Size
from sdcorr.matchers.mutual import Mutual
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.pixel import Pixel
from sdcorr.matchers.same_position import SamePosition
from sdcorr.matchers.soft_argmax import SoftArgmax
from sdcorr.recipe import Recipe, read_recipe
from sdcorr.types import FeatureMap, Matches, Similarity

LANDSCAPE = Grid((6, 6), (10.0, 10.0), (0.0, -15.0), Size(30, 60))  # rows 0, 1, 4, 5: padding
PORTRAIT = Grid((5, 5), (9.0, 9.0), (-10.0, 0.0), Size(45, 25))


def random_map(grid: Grid, seed: int) -> FeatureMap:
    generator = torch.Generator().manual_seed(seed)
    return FeatureMap("m", torch.randn(12, *grid.shape, generator=generator), grid)


def pair(seed: int = 0) -> FusedSimilarity:
    return FusedSimilarity(random_map(LANDSCAPE, seed), random_map(PORTRAIT, seed + 1))


@dataclass(frozen=True)
class Fixed:
    """Matches with given cycle errors."""

    cycles: tuple[float, ...]
    matched: tuple[bool, ...]

    def __call__(self, similarity: Similarity, points: Tensor) -> Matches:
        column = torch.arange(len(points)).float()
        return Matches(
            points, points + 1, column, column, torch.tensor(self.cycles).double(), column,
            torch.tensor(self.matched),
        )  # fmt: skip


def test_the_tolerance_by_hand():
    """0.1 of 60 px, the source's longer side, is 6 px; what was rejected stays so."""
    inner = Fixed((0.0, 6.0, 6.01, 0.0), (True, True, True, False))
    found = Mutual(inner, within=0.1)(pair(), torch.zeros(4, 2).double())
    assert found.matched.tolist() == [True, True, False, False]
    swapped = Mutual(Fixed((4.5, 4.51), (True, True)), within=0.1)
    assert swapped(pair().swap(), torch.zeros(2, 2).double()).matched.tolist() == [True, False]


@pytest.mark.parametrize(
    "inner", [Nearest(), SoftArgmax(window=3), Pixel(), Nearest(sample="cell")], ids=str
)
def test_all_but_matched_is_as_of_the_inner_matcher(inner):
    similarity = pair()
    points = similarity.source.centers()[similarity.source.inside()]
    plain, found = inner(similarity, points), Mutual(inner, within=0.2)(similarity, points)
    for one in fields(Matches):
        if one.name != "matched" and isinstance(getattr(plain, one.name), Tensor):
            assert torch.equal(getattr(found, one.name), getattr(plain, one.name))
    assert torch.equal(found.matched, plain.matched & (plain.cycle_error <= 12))
    assert 0 < found.matched.sum() < len(points)


def test_within_less_than_a_cell_it_is_nearest_s_own_mutual():
    """At cell centres; between them, the way back leads to a centre a little off."""
    similarity = pair(3)
    points = similarity.source.centers()[similarity.source.inside()]
    expected = Nearest(mutual=True)(similarity, points).matched
    assert torch.equal(Mutual(Nearest(), within=0.01)(similarity, points).matched, expected)
    assert 0 < expected.sum() < len(points)


def test_a_photo_is_mutual_with_itself():
    one = random_map(LANDSCAPE, 0)
    points = LANDSCAPE.centers()[LANDSCAPE.inside()]
    assert Mutual(Nearest(), within=1e-6)(FusedSimilarity(one, one), points).matched.all()


def test_no_points_give_no_matches():
    assert len(Mutual(Nearest())(pair(), torch.zeros(0, 2).double())) == 0


def test_twice_mutual_is_the_narrower_one():
    similarity = pair()
    points = similarity.source.centers()[similarity.source.inside()]
    once = Mutual(Nearest(), within=0.05)(similarity, points)
    twice = Mutual(Mutual(Nearest(), within=0.05), within=0.5)(similarity, points)
    assert torch.equal(once.matched, twice.matched)


@pytest.mark.parametrize("within", [0.0, -0.1])
def test_the_tolerance_is_positive(within: float):
    with pytest.raises(BadRecipe, match=f"mutual: within must be positive, got {within}"):
        Mutual(Nearest(), within=within)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"matcher": None}, r"mutual\.matcher must be one of matchers, got None"),
        ({"matcher": Nearest}, r"mutual\.matcher must be one of matchers"),
        ({"matcher": Nearest(), "within": "far"}, r"mutual\.within must be a number, got 'far'"),
        ({"matcher": Nearest(), "within": float("nan")}, r"mutual\.within must be finite"),
        ({"matcher": Nearest(mutual="yes")}, r"mutual\.matcher\.mutual must be true or false"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(BadRecipe, match=message):
        Mutual(**fields)


def recipe(matcher) -> Recipe:
    return Recipe("mine", (Group("sift", Sift(), (MapUse("rootsift"),)),), matcher=matcher)


def test_it_stands_in_a_recipe_s_file_with_its_matcher():
    mine = recipe(Mutual(SoftArgmax(window=5), within=0.1))
    described = json.loads(json.dumps(mine.describe()))
    assert described["matcher"] == {
        "kind": "mutual", "within": 0.1,
        "matcher": {
            "kind": "soft_argmax", "window": 5, "temperature": 0.02, "inside_only": True,
        },
    }  # fmt: skip
    assert read_recipe(described) == mine
    assert read_recipe(recipe(Mutual(SamePosition())).describe()).matcher == Mutual(SamePosition())


def test_a_matcher_that_is_not_there_is_told():
    described = recipe(Mutual(Nearest())).describe()
    described["matcher"]["matcher"]["kind"] = "nearst"
    with pytest.raises((BadRecipe, UnknownName), match="did you mean 'nearest'"):
        read_recipe(described)
    del described["matcher"]["matcher"]
    with pytest.raises(BadRecipe, match=r"recipe\.matcher lacks the field matcher"):
        read_recipe(described)

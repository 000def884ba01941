from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sdcorr.backbones.sift import Sift
from sdcorr.errors import BadRecipe
from sdcorr.fusion import (
    FusedSimilarity,
    Group,
    MapUse,
    fuse_group,
    join,
)
from sdcorr.geometry import Grid, Size
from sdcorr.maps import joint_pca, principal_directions
from sdcorr.types import FeatureMap

SIDE = 60


def grid(side: int, photo: int = 480) -> Grid:
    return Grid((side, side), (photo / side, photo / side), (0.0, 0.0), Size(photo, photo))


def random_map(channels: int, side: int, seed: int, name: str = "a") -> FeatureMap:
    generator = torch.Generator().manual_seed(seed)
    return FeatureMap(name, torch.randn(channels, side, side, generator=generator), grid(side))


def row_map(rows: Tensor) -> FeatureMap:
    """A map whose cells, in one line, are the rows ``(N, C)``."""
    count = len(rows)
    place = Grid((1, count), (1.0, 1.0), (0.0, 0.0), Size(1, count))
    return FeatureMap("rows", rows.T.unflatten(1, (1, count)), place)


def directions(source: Tensor, target: Tensor, dimensions: int) -> tuple[Tensor, Tensor]:
    return principal_directions([row_map(source), row_map(target)], dimensions)


def with_gap(rows: int, channels: int, kept: int, seed: int) -> Tensor:
    """Rows whose spectrum falls tenfold after the last kept component, off a common mean."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.full((channels,), 0.1)
    scales[:kept] = torch.linspace(3, 1, kept)
    turn, _ = torch.linalg.qr(torch.randn(channels, channels, generator=generator))
    return (torch.randn(rows, channels, generator=generator) * scales) @ turn + 5


@pytest.mark.parametrize(
    ("rows", "channels"), [((60, 50), 32), ((9, 11), 40), ((20, 20), 40)], ids=str
)
def test_joint_pca_agrees_with_numpy_svd(rows, channels):
    """On either Gram side; signs and rotations within ties do not matter, inner products do."""
    kept = 6
    turned = with_gap(sum(rows), channels, kept, seed=0)
    source, target = turned[: rows[0]], turned[rows[0] :]
    mean, basis = directions(source, target, kept)
    union = turned.double().numpy()
    centred = union - union.mean(axis=0)
    _, _, right = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ right[:kept].T
    got = ((turned - mean) @ basis).double().numpy()
    gram, expected_gram = got @ got.T, expected @ expected.T
    assert np.abs(gram - expected_gram).max() < 1e-4 * np.abs(expected_gram).max()
    np.testing.assert_allclose((basis.T @ basis).numpy(), np.eye(kept), atol=1e-5)
    assert (np.diff(got.var(axis=0)) < 1e-5).all()  # by falling variance


@pytest.mark.parametrize("sides", [(3, 4), (8, 9)], ids=["cells", "moments"])
def test_each_photo_has_its_own_number_of_cells(sides):
    source, target = (random_map(40, side, seed) for seed, side in enumerate(sides))
    mean, basis = principal_directions([source, target], 5)
    union = torch.cat([source.descriptors(), target.descriptors()]).double().numpy()
    np.testing.assert_allclose(mean.numpy(), union.mean(axis=0), atol=1e-6)
    _, _, right = np.linalg.svd(union - union.mean(axis=0), full_matrices=False)
    between = np.linalg.svd(right[:5] @ basis.double().numpy(), compute_uv=False)
    np.testing.assert_allclose(between, 1, atol=1e-6)  # cosines between the two subspaces


@pytest.mark.parametrize("loud", [1, 30, 1000])
def test_one_loud_channel_takes_nothing_from_the_last_directions(loud):
    """As of a transformer, where one channel can have nearly all variance; the others count too."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1400, 640, generator=generator) * torch.arange(1, 641) ** -0.7
    rows[:, 5] *= loud
    _, basis = directions(rows[:700], rows[700:], 128)
    centred = rows.double() - rows.double().mean(dim=0)
    _, _, right = torch.linalg.svd(centred, full_matrices=False)
    cosines = torch.linalg.svdvals(right[:128] @ basis.double())
    assert cosines.min() > 1 - 1e-6


def test_moments_are_those_of_the_cells_and_kept():
    one = random_map(7, 5, seed=0)
    one = FeatureMap("far", one.values + 1000, one.grid)  # E[xx] - mm would cancel in float32
    rows = one.values.flatten(1).T.double().numpy()
    held = one.nbytes
    mean, scatter = one.moments
    np.testing.assert_allclose(mean.numpy(), rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        scatter.numpy(), np.cov(rows.T, bias=True) * len(rows), rtol=1e-9, atol=1e-9
    )
    assert one.moments[1] is scatter
    assert held == one.values.nbytes
    assert one.nbytes == held + mean.nbytes + scatter.nbytes


def test_photos_of_unlike_means_are_centred_together():
    """One photo's rows around (0, 0), the other's around (10, 0): the first direction is x."""
    source = torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 0.0]])
    mean, basis = directions(source, source + torch.tensor([10.0, 0.0]), 1)
    assert mean.tolist() == [5.0, 0.0]
    assert basis.abs().flatten().tolist() == pytest.approx([1.0, 0.0], abs=1e-6)


def test_directions_without_variance_give_zeros():
    source = torch.tensor([[1.0, 0.0, 0.0, 2.0], [2.0, 0.0, 0.0, 2.0]])
    for rows in (1, 8):  # either Gram side
        _, basis = directions(source.repeat(rows, 1), source.repeat(rows, 1), 3)
        assert basis.shape == (4, 3)
        assert basis[:, 0].abs().tolist() == pytest.approx([1, 0, 0, 0], abs=1e-5)
        assert basis[:, 1:].abs().max() < 1e-3


def test_more_dimensions_than_rows_are_filled_with_zeros():
    rows = torch.randn(2, 9, generator=torch.Generator().manual_seed(0))
    _, basis = directions(rows[:1], rows[1:], 5)
    assert basis.shape == (9, 5)
    assert basis[:, 1:].eq(0).all()
    assert basis[:, 0].norm() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("channels", "side"), [(4, 3), (64, 15), (64, 60), (1280, 15)])
def test_constant_maps_give_zeros_not_rounding_noise(channels, side):
    generator = torch.Generator().manual_seed(0)
    values = 5 * torch.randn(channels, generator=generator)[:, None, None]
    flat = FeatureMap("flat", values.expand(channels, side, side), grid(side))
    for reduced in joint_pca([flat, flat], 2):
        assert reduced.values.eq(0).all()


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3, 1e9])
@pytest.mark.parametrize(
    ("rows", "channels"), [(450, 640), (900, 320), (1800, 160)], ids=["gram", "square", "tall"]
)
def test_directions_are_orthonormal_at_every_scale(rows, channels, scale):
    """As of the maps of sd-dino, whose values differ by orders of magnitude between layers."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.arange(1, channels + 1) ** -1.0
    both = scale * (torch.randn(rows, channels, generator=generator) * spread + 3)
    source, target = both.split(rows // 2)
    kept = 128
    _, basis = directions(source, target, kept)
    torch.testing.assert_close(basis.T @ basis, torch.eye(kept), rtol=0, atol=1e-4)
    _, plain = directions(source / scale, target / scale, kept)
    agreement = torch.linalg.svdvals(plain.T @ basis)  # cosines between the two subspaces
    assert agreement.min() > 0.999


def test_pca_beyond_the_channels_is_refused():
    one = random_map(4, 3, seed=0)
    with pytest.raises(BadRecipe, match="pca 5 of map 'a', which has 4 channels"):
        joint_pca([one, one], 5)


def slow_bilinear(values: np.ndarray, factor: int) -> np.ndarray:
    """Bilinear upsampling, align_corners False, cell by cell."""
    channels, height, width = values.shape
    out = np.zeros((channels, height * factor, width * factor))
    for row in range(height * factor):
        for column in range(width * factor):
            y = min(max((row + 0.5) / factor - 0.5, 0), height - 1)
            x = min(max((column + 0.5) / factor - 0.5, 0), width - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
            fy, fx = y - y0, x - x0
            out[:, row, column] = (
                (1 - fy) * (1 - fx) * values[:, y0, x0]
                + (1 - fy) * fx * values[:, y0, x1]
                + fy * (1 - fx) * values[:, y1, x0]
                + fy * fx * values[:, y1, x1]
            )
    return out


Arrays = dict[str, np.ndarray]


def published_cosines(source: Arrays, target: Arrays, kept: int) -> np.ndarray:
    """sd-dino's fusion by the letter, float64: cosines of all cells of both photos.

    PCA per map over both photos' cells; layer 2 twice as fine, joins layer 5; both twice as
    fine; order 8 | 5 | 2; L2 over the SD half, L2 over DINO; concatenate.
    """
    reduced: list[Arrays] = [{}, {}]
    for name in ("2", "5", "8"):
        channels, side, _ = source[name].shape
        rows = [one[name].reshape(channels, -1).T for one in (source, target)]
        mean = np.concatenate(rows).mean(axis=0)
        _, _, right = np.linalg.svd(np.concatenate(rows) - mean, full_matrices=False)
        for maps, own in zip(reduced, rows, strict=True):
            maps[name] = ((own - mean) @ right[:kept].T).T.reshape(kept, side, side)
    stacked = []
    for maps, token in zip(reduced, (source["token"], target["token"]), strict=True):
        coarse = slow_bilinear(np.concatenate([maps["5"], slow_bilinear(maps["2"], 2)]), 2)
        halves = [np.concatenate([maps["8"], coarse]), token]
        cells = [half.reshape(len(half), -1).T for half in halves]
        cells = [half / np.linalg.norm(half, axis=1, keepdims=True) for half in cells]
        stacked.append(np.concatenate(cells, axis=1))
    return stacked[0] @ stacked[1].T / 2


def layered_map(channels: int, side: int, seed: int, spread: float) -> FeatureMap:
    """As real maps are: a few strong channels, many weak ones, around a mean that is not zero."""
    plain = random_map(channels, side, seed)
    falling = spread * torch.arange(1, channels + 1) ** -0.7
    mean = 5 * torch.randn(channels, generator=torch.Generator().manual_seed(channels))
    return FeatureMap("a", plain.values * falling[:, None, None] + mean[:, None, None], plain.grid)


@pytest.mark.parametrize(
    ("shapes", "kept", "spread"),
    [
        ({"8": (10, 12), "5": (10, 6), "2": (10, 3), "token": (7, 12)}, 4, 1.0),
        # the recipe's channels, with values of the size that UNets have: layers keep their share
        ({"8": (640, 48), "5": (1280, 24), "2": (1280, 12), "token": (768, 48)}, 256, 30.0),
    ],
    ids=["small", "real size"],
)
def test_sd_dino_fusion_to_the_letter(shapes, kept, spread):
    uses = (MapUse("8", kept), MapUse("5", kept, (2,)), MapUse("2", kept, (2, 2)))
    groups = [Group("sd", Sift(), uses), Group("dino", Sift(), (MapUse("token"),))]
    photos = []
    for seed in (0, 100):
        maps = {name: layered_map(*shape, seed, spread) for name, shape in shapes.items()}
        photos.append(
            {f"{'dino' if key == 'token' else 'sd'}/{key}": one for key, one in maps.items()}
        )
    plain = [
        {key.split("/")[1]: one.values.double().numpy() for key, one in maps.items()}
        for maps in photos
    ]
    similarity = join(groups, *photos)
    some = torch.arange(0, similarity.source.shape[0] ** 2, 37)
    got = similarity.rows(similarity.source.centers()[some]).numpy()
    expected = published_cosines(*plain, kept)[some]
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).all()


def test_weights_share_as_their_squares():
    """cos = (w1^2 cos1 + w2^2 cos2) / (w1^2 + w2^2), for unit groups."""
    groups = [
        Group("a", Sift(), (MapUse("m"),), weight=1.0),
        Group("b", Sift(), (MapUse("m"),), weight=3.0),
    ]
    photos = [
        {"a/m": random_map(5, 4, seed), "b/m": random_map(6, 4, seed + 1)} for seed in (0, 10)
    ]
    centers = grid(4).centers()
    alone = [join([group], *photos).rows(centers) for group in groups]
    both = join(groups, *photos).rows(centers)
    torch.testing.assert_close(both, (alone[0] + 9 * alone[1]) / 10, rtol=0, atol=1e-6)


def test_a_flat_cell_is_similar_to_nothing():
    values = torch.randn(5, 3, 3, generator=torch.Generator().manual_seed(0))
    values[:, 1, 1] = 0
    flat = FeatureMap("m", values, grid(3))
    rows = join([Group("a", Sift(), (MapUse("m"),))], {"a/m": flat}, {"a/m": flat}).rows(
        grid(3).centers()
    )
    assert rows[4].eq(0).all()
    assert rows[:, 4].eq(0).all()
    assert torch.isfinite(rows).all()


def test_rows_are_cosines_of_the_bilinear_descriptor():
    source, target = random_map(8, 5, 0), random_map(8, 7, 1)
    similarity = join([Group("a", Sift(), (MapUse("a"),))], {"a/a": source}, {"a/a": target})
    points = torch.tensor([[100.3, 71.9], [0.0, 0.0], [479.0, 240.0]], dtype=torch.float64)
    rows = similarity.rows(points)
    assert rows.shape == (3, 49)
    unit_source = torch.nn.functional.normalize(source.values, dim=0)
    read = FeatureMap("unit", unit_source, source.grid).sample(points)
    for query, row in zip(read, rows, strict=True):
        for cell, value in enumerate(row):
            key = target.descriptors()[cell]
            assert value == pytest.approx(
                (query @ key / query.norm() / key.norm()).item(), abs=1e-5
            )


def test_swap_sees_the_pair_from_the_target():
    source, target = random_map(8, 5, 0), random_map(8, 7, 1)
    similarity = join([Group("a", Sift(), (MapUse("a"),))], {"a/a": source}, {"a/a": target})
    forth = similarity.rows(similarity.source.centers())
    back = similarity.swap().rows(similarity.target.centers())
    torch.testing.assert_close(forth, back.T, rtol=0, atol=1e-5)


def test_groups_on_unlike_grids_meet_on_the_finer_one():
    """A coarse ramp read at fine cells is still the ramp."""
    coarse, fine = grid(4), grid(8)
    ramp = torch.stack([coarse.centers()[:, 0], torch.full((16,), 100.0)]).reshape(2, 4, 4).float()
    maps = {"a/m": FeatureMap("m", ramp, coarse), "b/m": random_map(3, 8, 0, "m")}
    groups = [Group("a", Sift(), (MapUse("m"),)), Group("b", Sift(), (MapUse("m"),))]
    fused = join(groups, maps, maps).source_map
    assert fused.grid == fine
    middle = fused.values[:2, 3, 3]
    angle = torch.atan2(middle[0], middle[1]).item()
    x = fine.centers()[3 * 8 + 3, 0].item()
    assert angle == pytest.approx(np.arctan2(x, 100), abs=0.02)  # between two unit vectors


def test_grids_a_hair_apart_are_joined_cell_by_cell():
    """840 and 960 px letterboxes round the short side apart by under a pixel, as in the papers."""
    shape, size = (SIDE, SIDE), Size(333, 500)
    first = Grid(shape, (8.333, 8.34), (0.0, -83.4), size)
    second = Grid(shape, (8.333, 8.335), (0.0, -83.3), size)
    generator = torch.Generator().manual_seed(0)
    one = FeatureMap("m", torch.randn(3, *shape, generator=generator), first)
    two = FeatureMap("m", torch.randn(4, *shape, generator=generator), second)
    groups = [Group("a", Sift(), (MapUse("m"),)), Group("b", Sift(), (MapUse("m"),))]
    fused = join(groups, {"a/m": one, "b/m": two}, {"a/m": one, "b/m": two}).source_map
    unit = torch.nn.functional.normalize(two.values, dim=0)
    torch.testing.assert_close(fused.values[3:], unit, rtol=1e-5, atol=1e-6)


def test_maps_of_a_group_must_meet_in_one_shape():
    maps = {"a/x": random_map(3, 4, 0, "x"), "a/y": random_map(3, 8, 1, "y")}
    group = Group("a", Sift(), (MapUse("x"), MapUse("y")))
    with pytest.raises(BadRecipe, match=r"one shape, got .*'x': \(4, 4\)"):
        fuse_group(group, [maps, maps])


def test_similarity_of_a_map_with_itself_is_highest_at_home():
    one = random_map(16, 9, 3)
    unit = FeatureMap("u", torch.nn.functional.normalize(one.values, dim=0), one.grid)
    rows = FusedSimilarity(unit, unit).rows(one.grid.centers())
    assert rows.argmax(dim=1).tolist() == list(range(81))
    torch.testing.assert_close(rows.diagonal(), torch.ones(81), rtol=0, atol=1e-5)

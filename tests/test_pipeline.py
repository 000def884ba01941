from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import sdcorr
from sdcorr.backbones.dinov2 import Dinov2
from sdcorr.backbones.sift import Sift
from sdcorr.errors import (
    BadPoints,
    BadRecipe,
    NotFinite,
    OutOfMemory,
    UnknownName,
    WeightsNotFound,
)
from sdcorr.fused import best_apart
from sdcorr.fusion import Group, MapUse
from sdcorr.geometry import Size
from sdcorr.matchers.hough import Hough
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.pixel import Pixel
from sdcorr.matchers.soft_argmax import SoftArgmax
from sdcorr.pipeline import Pipeline
from sdcorr.plugins import names
from sdcorr.preprocess import read_points
from sdcorr.recipe import Recipe
from sdcorr.recipes import RECIPES, find_recipe
from tests.tiny import shrink, write_dinov2


@pytest.fixture(scope="module")
def sift() -> Pipeline:
    return sdcorr.load("sift", device="cpu")


def load_tiny(name: str, checkpoints: dict[str, Path], **options) -> Pipeline:
    recipe = shrink(find_recipe(name))
    places = {key: str(checkpoints[needed.model]) for key, needed in recipe.weights.items()}
    return sdcorr.load(recipe, models=places, device="cpu", dtype="float32", **options)


def sift_recipe(**changes) -> Recipe:
    return Recipe("mine", (Group("sift", Sift(**changes), (MapUse("rootsift"),)),))


# -- what a user writes ------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_runs_from_photos_to_matches(checkpoints, photo, other_photo, name):
    model = load_tiny(name, checkpoints)
    source, target = model.encode(photo, "cat"), model.encode(other_photo, "cat")
    matches = model.match(source, target, points=[[120, 80], [40.5, 200.25]])
    assert matches.source.tolist() == [[120, 80], [40.5, 200.25]]
    assert target.size.contains(matches.target).all()
    assert matches.target.device.type == "cpu"
    assert matches.target.dtype == torch.float64
    assert ((matches.score >= -1.001) & (matches.score <= 1.001)).all()
    assert (matches.confidence is None) == (model.recipe.calibration is None)
    assert len(model.match(source, target)) >= 1


@pytest.mark.parametrize("name", RECIPES)
def test_a_photo_matches_itself_in_every_recipe(checkpoints, photo, name):
    """Exactly; what finds places between cells, to within the cell that holds the point."""
    model = load_tiny(name, checkpoints)
    fused = model.fuse(photo, photo)
    grid, foreground = fused.similarity.source, fused.similarity.foreground
    points = grid.centers()[grid.inside() if foreground is None else foreground]
    points = points[grid.image.contains(points)]
    matches = fused.match(points)
    between = isinstance(model.recipe.matcher, SoftArgmax | Pixel | Hough)
    reach = torch.tensor(grid.stride) / 2 + 1 if between else torch.full((2,), 1e-6)
    assert ((matches.target - points).abs() <= reach).all()
    # SIFT has flat cells, similar to none; the same position looks at nothing
    assert (matches.score > 0.999).all() or name in ("sift", "same-position")


def test_sd_dino_fuses_both_backbones_in_the_published_order(checkpoints, photo):
    model = load_tiny("sd-dino", checkpoints)
    encoding = model.encode(photo)
    assert set(encoding.maps) == {
        "stable_diffusion/up_blocks.0.resnets.1",
        "stable_diffusion/up_blocks.1.attentions.1",
        "stable_diffusion/up_blocks.2.attentions.1",
        "dinov2/token",
    }
    fused = model.fuse(encoding, encoding).similarity.source_map
    assert fused.values.shape == (8 + 8 + 8 + 24, 12, 12)
    halves = fused.values[:24].norm(dim=0), fused.values[24:].norm(dim=0)
    for half in halves:
        torch.testing.assert_close(half, torch.ones(12, 12))
    assert set(encoding.revisions) == {
        str(checkpoints[one.model]) for one in find_recipe("sd-dino").weights.values()
    }


def test_the_default_recipe_is_sd_dino():
    from sdcorr.recipes import DEFAULT

    assert DEFAULT == "sd-dino"
    with pytest.raises(WeightsNotFound, match=r"models download sd-dino; .* recipe 'sift' needs"):
        sdcorr.load()


def test_paths_pil_images_arrays_and_encodings_are_the_same(sift, photo, other_photo, tmp_path):
    path = tmp_path / "a.png"
    PIL.Image.fromarray(photo).save(path)
    points = [[100, 100], [200, 30]]
    expected = sift.match(sift.encode(photo), sift.encode(other_photo), points).target
    for source in (path, str(path), PIL.Image.fromarray(photo), photo, photo / 255.0):
        assert torch.equal(sift.match(source, other_photo, points).target, expected)


@pytest.mark.parametrize("flip", [False, True])
def test_photos_encoded_together_are_those_encoded_alone(sift, photo, other_photo, flip):
    model = sdcorr.load(dataclasses.replace(sift.recipe, flip=flip))
    together = model.encode_batch([photo, other_photo, photo], category="cat")
    assert model.encode_batch([]) == []
    for found, one in zip(together, [photo, other_photo, photo], strict=True):
        alone = model.encode(one, category="cat")
        assert (found.image.pixels == one).all()
        assert found.image.category == "cat"
        assert (found.mirrored is None) == (not flip)
        for name, values in alone.maps.items():
            assert torch.equal(found.maps[name].values, values.values)
            if flip:
                assert torch.equal(found.mirrored[name].values, alone.mirrored[name].values)


def test_points_may_have_names(sift, photo, other_photo):
    matches = sift.match(photo, other_photo, {"left eye": [100, 50], "nose": (120.5, 70)})
    assert matches.names == ("left eye", "nose")
    assert matches.source.tolist() == [[100, 50], [120.5, 70]]


def test_a_hundred_clicks_equal_one_call(sift, photo, other_photo):
    fused = sift.fuse(photo, other_photo)
    points = [[3 * step, 2 * step] for step in range(100)]
    clicks = [fused.match([point]).target[0] for point in points]
    assert torch.equal(torch.stack(clicks), sift.match(photo, other_photo, points).target)


def test_matches_carry_their_photos_and_plot(sift, photo, other_photo):
    matches = sift.match(photo, other_photo, [[1, 2]])
    assert matches.source_image.size == (313, 471)
    assert matches.target_image.size == (271, 199)
    assert matches.plot().axes
    assert sift.fuse(photo, other_photo).plot((1, 2)).axes


def test_a_category_changes_the_features_only_where_a_prompt_asks(checkpoints, photo):
    sd, dino = load_tiny("sd15", checkpoints), load_tiny("dinov2-b", checkpoints)
    for model, differs in ((sd, True), (dino, False)):
        plain, named = model.encode(photo), model.encode(photo, "cat")
        layer = next(iter(plain.maps))
        assert torch.equal(plain.maps[layer].values, named.maps[layer].values) is not differs


# -- confident matches, without points ------------------------------------------------------------


@pytest.mark.parametrize("calibrated", [True, False])
def test_without_points_come_mutual_cells_best_first_and_apart(
    sift, photo, other_photo, calibrated
):
    fused = sift.fuse(photo, other_photo)
    if not calibrated:
        fused = dataclasses.replace(fused, calibration=None)
    matches = fused.match()
    assert 1 <= len(matches) <= 20
    assert ((matches.confidence if calibrated else matches.score).diff() <= 0).all()
    assert torch.equal(matches.source, fused.match(matches.source).source)
    for points, size in ((matches.source, (313, 471)), (matches.target, (271, 199))):
        distance = torch.cdist(points, points) + 1e9 * torch.eye(len(points))
        assert distance.min() >= max(size) / 20
    # mutual: from the target, the nearest cell is the one that it came from
    back = dataclasses.replace(fused, similarity=fused.similarity.swap(), source=fused.target)
    torch.testing.assert_close(back.match(matches.target).target, matches.source)


def test_a_shifted_photo_is_found_by_the_confident_matches(sift):
    """Two crops of one photo, 128 px (whole cells) apart: all matches tell the shift."""
    portrait = np.asarray(PIL.Image.open("assets/astronaut.png").convert("RGB"))
    left, right = portrait[:384, :384], portrait[:384, 128:]
    matches = sift.match(left, right)
    offset = matches.source - matches.target
    near = (offset - torch.tensor([128.0, 0.0])).norm(dim=1) < 10
    assert len(matches) == 20
    assert near.all()


def test_confident_matches_of_a_thin_photo_lie_on_it(dinov2_folder, photo):
    """No cell centre falls on a photo three pixels high."""
    model = sdcorr.load(
        shrink(find_recipe("dinov2-b")), models={"dinov2": str(dinov2_folder)}, device="cpu"
    )
    thin = photo[100:103]
    matches = model.match(thin, thin)
    assert len(matches) == 12
    assert Size(3, 471).contains(matches.source).all()
    assert Size(3, 471).contains(matches.target).all()


def test_best_apart_by_hand():
    """Four on a line of 100 px: 5 px are the least distance; the third is too near the first in
    the source, the fourth too near the second in the target."""
    source = torch.tensor([[0.0, 0.0], [50.0, 0.0], [4.0, 0.0], [90.0, 0.0]])
    target = torch.tensor([[10.0, 0.0], [60.0, 0.0], [30.0, 0.0], [62.0, 0.0]])
    score = torch.tensor([0.9, 0.8, 0.7, 0.6])
    sizes = (Size(50, 100), Size(100, 50))
    assert best_apart(score, source, target, *sizes).tolist() == [0, 1]
    assert best_apart(-score, source, target, *sizes).tolist() == [3, 2]


def test_no_mutual_match_gives_an_empty_result(sift):
    flat = np.full((64, 64, 3), 200, np.uint8)
    matches = sift.match(flat, flat)
    assert len(matches) == 0
    assert matches.plot().axes


# -- points ---------------------------------------------------------------------------------------

PHOTO = Size(height=50, width=100)


@pytest.mark.parametrize(
    "points",
    [
        [[0, 0], [99, 49]],
        ((0.5, 1), (2, 3)),
        np.array([[1, 2], [3, 4]]),
        np.array([[1, 2], [3, 4]], dtype=np.float32),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        [[-0.5, -0.5], [99.5, 49.5]],
    ],
    ids=["list", "tuple", "int array", "float array", "tensor", "edges"],
)
def test_points_of_many_kinds(points):
    names, places = read_points(points, PHOTO)
    assert names is None
    assert places.shape == (2, 2)
    assert places.dtype == torch.float64


@pytest.mark.parametrize("points", [[], {}, np.zeros((0, 2))])
def test_no_points(points):
    assert read_points(points, PHOTO)[1].shape == (0, 2)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ([[1, 2, 3]], r"expected points \(N, 2\), got shape \(1, 3\)"),
        ([1, 2], r"expected points \(N, 2\), got shape \(2,\)"),
        ([[1, 2], [3]], r"expected points \[\[x, y\], ...\]"),
        ([["a", "b"]], r"expected points \[\[x, y\], ...\]"),
        ([None], r"expected points"),
        ("12", r"expected points"),
        ({"nose": 5}, r"expected points"),
        (
            [[100, 10]],
            r"point number 1, \(100, 10\), is not on the source photo; .* 0\.\.99 .*0\.\.49",
        ),
        ([[10, 49.6]], "is not on the source photo"),
        ([[1, 1], [-1, 5], [5, -3]], r"point number 2, \(-1, 5\), .* \(and 1 more\)"),
        ({"nose": [1, 1], "tail": [1, 60]}, r"point 'tail', \(1, 60\)"),
        ([[float("nan"), 1]], r"\(nan, 1\), is not on"),
        ([[float("inf"), 1]], "is not on"),
    ],
)
def test_bad_points(points, message):
    with pytest.raises(BadPoints, match=message):
        read_points(points, PHOTO)


# -- recipes --------------------------------------------------------------------------------------


def test_weights_are_replaced_by_group_name():
    recipe = find_recipe("sd-dino").with_models({"dinov2": "/some/where"})
    assert recipe.backbones["dinov2"].model == "/some/where"
    assert (
        recipe.backbones["stable_diffusion"] == find_recipe("sd-dino").backbones["stable_diffusion"]
    )


def test_an_unknown_group_name_is_told():
    with pytest.raises(UnknownName, match="did you mean 'dinov2'"):
        find_recipe("sd-dino").with_models({"dino": "/some/where"})


def test_a_backbone_without_weights_takes_none():
    with pytest.raises(BadRecipe, match="sift loads no weights"):
        find_recipe("sift").with_models({"sift": "/some/where"})


def test_an_unknown_recipe_is_told():
    with pytest.raises(UnknownName, match="no recipe called 'sd_dino'; did you mean 'sd-dino'"):
        sdcorr.load("sd_dino")


def test_recipes_are_hashable_and_json():
    for name, recipe in RECIPES.items():
        assert recipe.name == name
        assert hash(recipe) == hash(dataclasses.replace(recipe))
        described = json.loads(json.dumps(recipe.describe()))
        kinds = [group["backbone"]["kind"] for group in described["groups"]]
        assert set(kinds) <= set(names("backbones"))
        assert described["matcher"]["kind"] in names("matchers")
        assert described["matcher"].get("inside_only", True)


@pytest.mark.parametrize(
    ("groups", "error", "message"),
    [
        ((), BadRecipe, "groups with names of their own"),
        ((Group("a", Sift(), (MapUse("rootsift"),)),) * 2, BadRecipe, "names of their own"),
        ((Group("a", Sift(), (MapUse("rootsift"),), 0.0),), BadRecipe, "weight must be positive"),
        ((Group("a", Sift(), ()),), BadRecipe, "group 'a': uses no maps"),
        ((Group("a", Sift(), (MapUse("rootsift", pca=0),)),), BadRecipe, "pca must be at least 1"),
        ((Group("a", Sift(), (MapUse("rootsift", None, (0,)),)),), BadRecipe, "whole factors"),
        ((Group("a", Sift(), (MapUse("rotsift"),)),), UnknownName, "did you mean 'rootsift'"),
    ],
)
def test_recipes_that_contradict_themselves(groups, error, message):
    with pytest.raises(error, match=message):
        Recipe("mine", groups)


def test_a_backbone_s_choices_are_checked():
    with pytest.raises(BadRecipe, match=r"dinov2\.fit must be one of letterbox, stretch, got"):
        Dinov2(fit="crop")


def test_a_matcher_s_choices_are_checked():
    groups = sift_recipe().groups
    with pytest.raises(BadRecipe, match="sample must be one of bilinear, cell, got 'nearest'"):
        Recipe("mine", groups, matcher=Nearest(sample="nearest"))


def test_pca_beyond_the_channels_is_found_when_loading(dinov2_folder):
    config = Dinov2(str(dinov2_folder), size=168)
    recipe = Recipe("mine", (Group("dinov2", config, (MapUse("token", pca=25),)),))
    with pytest.raises(BadRecipe, match="pca 25 of map 'token', which has 24 channels"):
        sdcorr.load(recipe)


def test_an_encoding_of_another_recipe_is_refused(sift, photo):
    other = sdcorr.load(sift_recipe(stride=16)).encode(photo)
    with pytest.raises(BadRecipe, match="encode the photo again"):
        sift.match(other, photo, [[1, 1]])


def test_an_encoding_serves_another_matcher(sift, photo):
    mutual = dataclasses.replace(find_recipe("sift"), matcher=Nearest(mutual=True))
    encoding = sift.encode(photo)
    assert sdcorr.load(mutual).match(encoding, encoding, [[100, 100]]).matched.all()


@pytest.mark.parametrize(
    ("dtype", "words"),
    [
        ("bfloat16", r"in bfloat16; run again with --dtype float32"),
        ("float32", "float32$"),
    ],
)
def test_a_map_that_is_not_finite_names_map_and_dtype(dinov2_folder, photo, dtype, words):
    model = sdcorr.load(
        shrink(find_recipe("dinov2-b")),
        models={"dinov2": str(dinov2_folder)}, device="cpu", dtype=dtype,
    )  # fmt: skip
    with torch.no_grad():
        model.backbones["dinov2"].transformer.model.encoder.layer[3].norm1.weight.fill_(torch.nan)
    with pytest.raises(NotFinite, match=f"'token' is not finite, .*{words}"):
        model.encode(photo)


def test_an_encoding_of_other_weights_is_refused(photo, tmp_path):
    """The same folder, written anew: the config is equal, the weights are not."""
    recipe, places = shrink(find_recipe("dinov2-b")), {"dinov2": str(tmp_path)}
    write_dinov2(tmp_path)
    old = sdcorr.load(recipe, models=places, device="cpu").encode(photo)
    write_dinov2(tmp_path, mlp_ratio=4)
    with pytest.raises(BadRecipe, match="other backbones or weights"):
        sdcorr.load(recipe, models=places, device="cpu").match(old, photo)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
        RuntimeError("MPS backend out of memory"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
    ids=["cpu", "mps", "python", "cuda"],
)
def test_out_of_memory_says_what_to_lower(sift, photo, monkeypatch, error):
    def fail(*_args):
        raise error

    monkeypatch.setattr("sdcorr.backbones.sift.SiftBackbone._extract", fail)
    with pytest.raises(OutOfMemory, match=r"recipe 'sift'; lower --batch \(now 4\), use --dtype"):
        sift.encode(photo)


def test_other_runtime_errors_stay_what_they_are(sift, photo, monkeypatch):
    def fail(*_args):
        raise RuntimeError("a bug")

    monkeypatch.setattr("sdcorr.backbones.sift.SiftBackbone._extract", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        sift.encode(photo)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_what_the_cpu_finds(checkpoints, photo, other_photo):
    recipe = shrink(find_recipe("sd-dino"))
    places = {key: str(checkpoints[one.model]) for key, one in recipe.weights.items()}
    points = [[100, 100], [300, 200], [20, 30]]
    found = [
        sdcorr.load(recipe, models=places, device=device, dtype="float32").match(
            photo, other_photo, points
        )
        for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(found[0].target, found[1].target)
    torch.testing.assert_close(found[0].score, found[1].score, rtol=1e-3, atol=1e-3)

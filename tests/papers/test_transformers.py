"""The recipes with a vision transformer alone compute what the papers compute, stage by stage.

Each stage is compared with ``reference_transformers`` on the same random weights, loaded by the
code that users run. float32 costs 1e-6 here; 1e-4 leaves room for other machines.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import sdcorr
from sdcorr.backbones._transformer import TransformerConfig
from sdcorr.fusion import Foreground, MapUse
from sdcorr.matchers.nearest import Nearest
from sdcorr.pipeline import Pipeline
from sdcorr.preprocess import fit, load_image
from sdcorr.recipe import Recipe
from sdcorr.recipes import RECIPES, find_recipe
from sdcorr.runtime import Runtime
from sdcorr.types import Encoding, FeatureMap
from tests.full_size import FULL_SIZE
from tests.papers import reference_transformers as reference
from tests.papers.reference_transformers import Canvas, Model, Stages
from tests.tiny import dinov2_parts, shrink, write

CLOSE = 1e-4


@dataclass(frozen=True)
class Paper:
    """What methods.md says of a recipe, and what the model's own paper says of its depth."""

    model: str
    depth: int = 12
    patch: int = 14
    size: int = 840
    block: int = -1  # of the depth; -1 is the last
    facet: str = "token"
    norm: bool = False
    fit: str = "letterbox"
    stride: int | None = None
    positions: str = "original"
    small: int = 168  # canvas in these tests

    @property
    def read(self) -> int:
        return range(self.depth)[self.block]

    @property
    def step(self) -> int:
        return self.stride or self.patch

    def canvas(self, photo: np.ndarray, size: int) -> Canvas:
        return (reference.shorter if self.fit == "shorter" else reference.letterbox)(photo, size)

    def expected(self, model: Model, stages: Stages) -> Tensor:
        """The map ``(C, h, w)`` that the recipe matches by."""
        rows = getattr(stages, self.facet)[self.read]
        return stages.cells(model.norm(rows) if self.norm else rows)


DEPTHS = {"small": 12, "base": 12, "large": 24, "giant": 40}
PAPERS = {
    f"dinov2-{size[0]}{'-registers' if registers else ''}": Paper(
        f"facebook/dinov2-{registers}{size}",
        depth=depth,
        positions="antialiased" if registers else "original",
    )
    for size, depth in DEPTHS.items()
    for registers in ("", "with-registers-")
}
PAPERS |= {
    f"dinov3-{size[0]}": Paper(
        f"facebook/dinov3-vit{size[0]}16-pretrain-lvd1689m",
        depth=DEPTHS[size], patch=16, size=768, norm=True, small=192,
    )
    for size in ("small", "base", "large")
}  # fmt: skip
PAPERS["dino-v1"] = Paper(
    "facebook/dino-vits8", patch=8, size=224, block=9, facet="key", fit="shorter", stride=4,
    small=72,
)  # fmt: skip
PAPERS["vit"] = Paper("google/vit-base-patch16-224", patch=16, size=640, small=192)
ONE_OF_EACH = ["dinov2-b", "dinov2-b-registers", "dinov3-b", "dino-v1", "vit"]


def error(got: Tensor, expected: Tensor) -> float:
    """Relative to the expected values, all together."""
    assert got.shape == expected.shape
    return float((got.double() - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def folders(checkpoints, tmp_path_factory) -> Callable[[str], Path]:
    """Checkpoint of each recipe, with weights of which each counts."""
    root, made = tmp_path_factory.mktemp("transformers"), {}

    def folder(name: str) -> Path:
        source = checkpoints[PAPERS[name].model]
        if source not in made:
            made[source] = reference.rewrite(source, root / source.name, reference.randomise)
        return made[source]

    return folder


def small(name: str) -> Recipe:
    """The recipe for tiny checkpoints."""
    recipe = shrink(find_recipe(name))
    (group,) = recipe.groups
    config = dataclasses.replace(group.backbone, size=PAPERS[name].small)
    return dataclasses.replace(recipe, groups=(dataclasses.replace(group, backbone=config),))


@dataclass(frozen=True)
class Both:
    """One recipe by sdcorr and by the reference."""

    paper: Paper
    pipeline: Pipeline
    model: Model

    def reference(self, photo: np.ndarray) -> tuple[Canvas, Stages]:
        canvas = self.paper.canvas(photo, self.paper.small)
        inputs = reference.normalise(canvas)
        return canvas, self.model.run(inputs, self.paper.stride, self.paper.positions)


@pytest.fixture(scope="module")
def both(folders) -> Callable[[str], Both]:
    made: dict[str, Both] = {}

    def load(name: str) -> Both:
        if name not in made:
            recipe, folder = small(name), folders(name)
            places = {key: str(folder) for key in recipe.weights}
            pipeline = sdcorr.load(recipe, models=places, device="cpu", dtype="float32")
            made[name] = Both(PAPERS[name], pipeline, Model(folder))
        return made[name]

    return load


def extract(name: str, folder: Path, photo: np.ndarray, **changes: Any) -> FeatureMap:
    """The map of the recipe's backbone with other fields."""
    (config,) = small(name).backbones.values()
    config = dataclasses.replace(config, model=str(folder), **changes)
    (maps,) = config.build(Runtime()).extract([load_image(photo)])
    return maps[config.facet]


# -- which model, which block ------------------------------------------------------------------


def test_every_recipe_with_a_transformer_alone_is_checked_here():
    found = {
        name
        for name, recipe in RECIPES.items()
        if all(isinstance(one, TransformerConfig) for one in recipe.backbones.values())
    }
    assert found == set(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_model_size_and_block_are_the_published_ones(name):
    paper, recipe = PAPERS[name], find_recipe(name)
    (group,) = recipe.groups
    config = group.backbone
    assert (config.model, config.size, config.fit) == (paper.model, paper.size, paper.fit)
    assert (config.block, config.facet, config.norm) == (paper.read, paper.facet, paper.norm)
    assert config.stride == paper.stride
    assert config.revision is None
    assert getattr(config, "positions", "original") == "original"
    assert group.weight == 1
    assert group.unit
    if name == "dino-v1":
        assert group.maps == (MapUse("key", context=True),)
        assert recipe.matcher == Nearest(mutual=True)
        assert recipe.foreground == Foreground("vit/saliency", above=0.05)
        assert config.saliency == (0, 2, 4, 5)
    else:
        assert group.maps == (MapUse("token"),)
        assert recipe.matcher == Nearest()
        assert recipe.foreground is None


def test_fused_recipes_have_the_same_dinov2():
    fused = [name for name, recipe in RECIPES.items() if len(recipe.groups) > 1]
    assert {"sd-dino", "geoaware", "cleandift-dino"} <= set(fused)
    (alone,) = find_recipe("dinov2-b").groups
    for name in fused:
        assert find_recipe(name).groups[1] == alone


@pytest.mark.parametrize("name", PAPERS)
def test_the_published_model_has_this_depth_and_patch(name):
    with torch.device("meta"):
        model = FULL_SIZE[PAPERS[name].model]()[""]
    assert model.config.num_hidden_layers == PAPERS[name].depth
    assert model.config.patch_size == PAPERS[name].patch


# -- photo to input ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dinov2-b", "dinov3-b", "dino-v1", "vit"])
@pytest.mark.parametrize("upright", [False, True])
def test_canvas_at_the_real_size(photo, other_photo, name, upright):
    paper = PAPERS[name]
    chosen = other_photo if upright else photo
    expected = paper.canvas(chosen, paper.size)
    canvas = fit(load_image(chosen), find_recipe(name).groups[0].backbone.size, paper.fit)
    assert canvas.pixels.shape == expected.pixels.shape
    assert np.array_equal(canvas.pixels, expected.pixels)
    assert (canvas.content, canvas.corner) == (expected.content, expected.corner)


def test_sizes_of_dino_v1_by_hand(photo, other_photo):
    """471 x 313: 224 * 471 / 313 = 337.07 wide. 199 x 271: 224 * 271 / 199 = 305.04 high."""
    for chosen, shape in ((photo, (224, 337, 3)), (other_photo, (305, 224, 3))):
        assert fit(load_image(chosen), 224, "shorter").pixels.shape == shape
    thin = np.zeros((100, 199, 3), np.uint8)  # 445.76: rounded down, not to the nearest
    assert fit(load_image(thin), 224, "shorter").pixels.shape == (224, 445, 3)


@pytest.mark.parametrize(("how", "size"), [("letterbox", 168), ("shorter", 72)])
def test_photos_are_resized_with_lanczos(photo, how, size):
    """Written out; Pillow's fixed point may differ by a grey level, bicubic by many."""
    canvas = fit(load_image(photo), size, how)
    (height, width), (left, top) = canvas.content, canvas.corner
    content = canvas.pixels[top : top + height, left : left + width].astype(float)
    assert np.abs(content - reference.lanczos(photo, height, width)).max() <= 1
    other = fit(load_image(photo), size, how, "bicubic").pixels.astype(float)
    assert np.abs(other - canvas.pixels).max() > 5


def inputs_of(pipeline: Pipeline, photo: np.ndarray) -> Tensor:
    """What the projection of the patches is given: ``(3, H, W)``."""
    (backbone,) = pipeline.backbones.values()
    seen = []
    (convolution,) = (
        one for one in backbone.transformer.model.modules() if isinstance(one, torch.nn.Conv2d)
    )
    handle = convolution.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        pipeline.encode(photo)
    finally:
        handle.remove()
    (inputs,) = seen
    return inputs[0]


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_the_model_is_given_the_canvas_with_imagenet_statistics(both, photo, name):
    """The black border is normalised like content, so it is not zero."""
    one = both(name)
    got = inputs_of(one.pipeline, photo)
    assert error(got, reference.normalise(one.paper.canvas(photo, one.paper.small))) < CLOSE
    if one.paper.fit == "letterbox":
        border = [-m / s for m, s in zip(reference.MEAN, reference.STD, strict=True)]
        assert got[:, 0, 0].tolist() == pytest.approx(border, rel=1e-5)


@pytest.mark.parametrize("name", ["vit", "dinov2-b"])
def test_a_checkpoint_s_own_mean_and_std(folders, photo, tmp_path, name):
    """google/vit-base-patch16-224 is published with 0.5; unlike ones tell the channels apart."""
    mean, std = (0.5, 0.4, 0.3), (0.5, 0.25, 0.2)
    folder = reference.rewrite(folders(name), tmp_path / "own")
    statistics = {"image_mean": mean, "image_std": std, "do_normalize": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    got = extract(name, folder, photo).values
    paper, model = PAPERS[name], Model(folder)
    inputs = reference.normalise(paper.canvas(photo, paper.small), mean, std)
    expected = paper.expected(model, model.run(inputs, positions=paper.positions))
    assert error(got, expected) < CLOSE
    plain = model.run(reference.normalise(paper.canvas(photo, paper.small)), None, paper.positions)
    assert error(got, paper.expected(model, plain)) > 0.01


# -- input to map ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAPERS)
def test_the_map_is_that_of_the_reference(both, photo, other_photo, name):
    one = both(name)
    for chosen in (photo, other_photo):
        canvas, stages = one.reference(chosen)
        (group,) = one.pipeline.recipe.groups
        found = one.pipeline.encode(chosen).maps[f"{group.name}/{one.paper.facet}"]
        assert error(found.values, one.paper.expected(one.model, stages)) < CLOSE
        assert found.grid.shape == stages.shape
        centres = reference.centres(canvas, stages.shape, one.paper.patch, one.paper.step)
        torch.testing.assert_close(found.grid.centers(), centres, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["dinov2-b", "dinov2-b-registers", "dinov3-b", "vit"])
@pytest.mark.parametrize(
    ("facet", "block"), [("token", 0), ("query", 4), ("key", 9), ("value", 11), ("key", 11)]
)
def test_facets_of_any_block(folders, photo, name, facet, block):
    """Keys and queries of DINOv3 are those before their rotation."""
    paper, folder = PAPERS[name], folders(name)
    got = extract(name, folder, photo, facet=facet, block=block, norm=False).values
    stages = Model(folder).run(
        reference.normalise(paper.canvas(photo, paper.small)), None, paper.positions
    )
    assert error(got, stages.cells(getattr(stages, facet)[block])) < CLOSE


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_norm_is_the_final_one(folders, photo, name):
    """Also of an inner block's tokens."""
    paper, folder = PAPERS[name], folders(name)
    model = Model(folder)
    inputs = reference.normalise(paper.canvas(photo, paper.small))
    stages = model.run(inputs, paper.stride, paper.positions)
    for norm in (True, False):
        got = extract(name, folder, photo, facet="token", block=7, norm=norm).values
        rows = stages.token[7]
        assert error(got, stages.cells(model.norm(rows) if norm else rows)) < CLOSE


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("dinov2-b", 14), ("dinov2-b", 7), ("dinov2-b-registers", 7), ("dinov3-b", 16),
        ("dinov3-b", 8), ("dinov3-b", 4), ("vit", 16), ("vit", 8), ("dino-v1", 8), ("dino-v1", 2),
    ],
)  # fmt: skip
def test_strides_from_the_patch_down(folders, photo, name, stride):
    """Cell k is centred at stride * k + patch / 2 canvas pixels; 1 + (side - patch) // stride."""
    paper, folder = PAPERS[name], folders(name)
    size = 6 * paper.patch
    found = extract(name, folder, photo, size=size, stride=stride)
    model, canvas = Model(folder), paper.canvas(photo, size)
    stages = model.run(reference.normalise(canvas), stride, paper.positions)
    assert error(found.values, paper.expected(model, stages)) < CLOSE
    height, width, _ = canvas.pixels.shape
    assert found.grid.shape == tuple(1 + (side - paper.patch) // stride for side in (height, width))
    places = reference.centres(canvas, found.grid.shape, paper.patch, stride)
    torch.testing.assert_close(found.grid.centers(), places, rtol=0, atol=1e-9)


@pytest.mark.parametrize("how", ["letterbox", "stretch", "shorter"])
@pytest.mark.parametrize("positions", ["original", "transformers"])
def test_fits_and_position_tables(folders, photo, how, positions):
    """Of the ViT, whose canvas need not be square."""
    name = "dino-v1"
    paper, folder = PAPERS[name], folders(name)
    found = extract(name, folder, photo, fit=how, positions=positions)
    canvas = {
        "letterbox": reference.letterbox,
        "shorter": reference.shorter,
        "stretch": lambda photo, size: Canvas(
            fit(load_image(photo), size, "stretch").pixels, photo.shape[:2], (size, size)
        ),
    }[how](photo, paper.small)
    model = Model(folder)
    stages = model.run(reference.normalise(canvas), paper.stride, positions)
    assert error(found.values, paper.expected(model, stages)) < CLOSE
    places = reference.centres(canvas, stages.shape, paper.patch, paper.step)
    torch.testing.assert_close(found.grid.centers(), places, rtol=0, atol=1e-9)
    wrong = {"original": "transformers", "transformers": "original"}[positions]
    other = model.run(reference.normalise(canvas), paper.stride, wrong)
    assert error(found.values, paper.expected(model, other)) > 10 * CLOSE


def test_a_giant_with_swiglu(tmp_path, photo):
    """40 blocks; the gate and what it lets through lie in one matrix of the file."""
    folder = write(tmp_path / "plain", dinov2_parts(num_hidden_layers=40, use_swiglu_ffn=True))
    folder = reference.rewrite(folder, tmp_path / "giant", reference.randomise)
    paper, model = PAPERS["dinov2-g"], Model(folder)
    assert "encoder.layer.39.mlp.weights_in.weight" in model.weights
    got = extract("dinov2-g", folder, photo).values
    canvas = paper.canvas(photo, paper.small)
    stages = model.run(reference.normalise(canvas), None, paper.positions)
    assert error(got, paper.expected(model, stages)) < CLOSE


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_bfloat16_is_close(both, folders, photo, name):
    one = both(name)
    (key,) = one.pipeline.backbones
    (config,) = small(name).with_models({key: str(folders(name))}).backbones.values()
    (maps,) = config.build(Runtime(dtype=torch.bfloat16)).extract([load_image(photo)])
    _, stages = one.reference(photo)
    got, expected = maps[config.facet].values, one.paper.expected(one.model, stages)
    assert CLOSE < error(got, expected) < 0.1
    if name == "dino-v1":
        assert error(maps["saliency"].values.flatten(), reference.saliency(stages)) < 0.1


# -- the reference can tell --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dinov2-b", "dinov2-b-registers", "dinov3-b", "vit"])
def test_each_weight_of_a_checkpoint_moves_the_reference(folders, photo, name):
    """So that agreement says something of each; but the bias of the keys, which softmax undoes."""
    paper, folder = PAPERS[name], folders(name)
    inputs = reference.normalise(paper.canvas(photo, paper.small))
    model = Model(folder)
    plain = paper.expected(model, model.run(inputs, None, paper.positions))
    numbered = [f"{model.names.block}.{block}." for block in range(12)]
    for weight, value in model.weights.items():
        of_block = weight.startswith(tuple(numbered))
        if of_block and not weight.startswith(numbered[5]):
            continue
        changed = Model(folder, {weight: torch.zeros_like(value)})
        moved = error(paper.expected(changed, changed.run(inputs, None, paper.positions)), plain)
        never = ("key.bias", "mask_token", *(() if paper.norm else ("layernorm.weight",)))
        if weight.endswith(never) or (weight == "layernorm.bias" and not paper.norm):
            assert moved < 1e-9
        else:
            assert moved > 10 * CLOSE, weight


# -- matches -----------------------------------------------------------------------------------


def some_points(photo: np.ndarray, count: int) -> list[tuple[float, float]]:
    """Corners, and places all over the photo that are no whole numbers."""
    height, width, _ = photo.shape
    draw = np.random.default_rng(0).random((count - 4, 2)) * (width - 1, height - 1)
    return [(0.0, 0.0), (width - 1.0, 0.0), (0.0, height - 1.0), (width - 1.0, height - 1.0)] + [
        (float(x), float(y)) for x, y in draw
    ]


@pytest.mark.parametrize("name", ["dinov2-b", "dinov3-b", "vit"])
def test_nearest_cell_of_the_photo(both, photo, other_photo, name):
    """Descriptors, cosines and the choice by slow loops; no cell on padding is chosen."""
    one, dark = both(name), photo.copy()
    dark[:, :235] = 0  # as black as the padding of the target
    (source_canvas, source), (target_canvas, target) = map(one.reference, (dark, other_photo))
    first, second = (
        reference.unit_cells(one.paper.expected(one.model, stages)) for stages in (source, target)
    )
    step = (one.paper.patch, one.paper.step)
    source_places = reference.centres(source_canvas, source.shape, *step)
    target_places = reference.centres(target_canvas, target.shape, *step)
    on_source = reference.inside(source_canvas, source_places)
    on_target = reference.inside(target_canvas, target_places)
    assert 0 < sum(on_target) < len(on_target)
    points = some_points(dark, 40)
    matches = one.pipeline.match(dark, other_photo, points)
    unlimited = 0
    for index, point in enumerate(points):
        place = reference.to_cell(source_canvas, point, *step)
        place = reference.confine(place, on_source, source.shape)
        values = reference.cosines(reference.read(first, *place), second)
        cell = reference.best(values, on_target)
        unlimited += cell != reference.best(values, [True] * len(values))
        expected = target_places[cell].tolist()
        assert matches.target[index].tolist() == pytest.approx(expected, abs=1e-6)
        assert matches.score[index].item() == pytest.approx(values[cell], abs=CLOSE)
    assert unlimited > 3  # padding would have been chosen


def test_a_predicted_point_is_the_middle_of_a_patch_on_the_840_px_canvas():
    """sd-dino says 14 k + 6.5 where pixels are counted from their centres: the same place."""
    image = load_image(np.zeros((313, 471, 3), np.uint8))
    grid = fit(image, 840, "letterbox").grid((60, 60), 14)
    scale, top = 840 / 471, (840 - round(840 * 313 / 471)) // 2
    x, y = grid.centers()[20 * 60 + 7].tolist()
    assert (x + 0.5) * scale - 0.5 == pytest.approx(14 * 7 + 6.5)
    assert (y + 0.5) * (840 - 2 * top) / 313 + top - 0.5 == pytest.approx(14 * 20 + 6.5)


# -- DINO v1 as a whole ------------------------------------------------------------------------


@dataclass(frozen=True)
class Side:
    """One photo by the reference."""

    canvas: Canvas
    shape: tuple[int, int]
    cells: Tensor  # (17 * C, h, w)
    salient: Tensor  # (h*w,)
    places: Tensor  # (h*w, 2)

    @property
    def allowed(self) -> list[bool]:
        return [value > 0.05 for value in self.salient.tolist()]


@pytest.fixture(scope="module")
def dino(both, photo, other_photo) -> tuple[Both, Side, Side]:
    one = both("dino-v1")

    def side(photo: np.ndarray) -> Side:
        canvas, stages = one.reference(photo)
        cells = reference.unit_cells(reference.log_bins(stages.cells(stages.key[9])))
        places = reference.centres(canvas, stages.shape, 8, 4)
        return Side(canvas, stages.shape, cells, reference.saliency(stages), places)

    return one, side(photo), side(other_photo)


def test_saliency_of_the_reference(dino, photo, other_photo):
    one, *sides = dino
    for chosen, side in zip((photo, other_photo), sides, strict=True):
        found = one.pipeline.encode(chosen).maps["vit/saliency"].values
        assert found.shape == (1, *side.shape)
        assert found.min() == 0
        assert found.max() == 1
        assert error(found.flatten(), side.salient) < CLOSE
        assert 50 < sum(side.allowed) < len(side.allowed) - 50  # the threshold takes its share


def test_similarity_is_the_cosine_of_log_binned_keys(dino, photo, other_photo):
    """All cells against all; channels may come in another order."""
    one, source, target = dino
    similarity = one.pipeline.fuse(photo, other_photo).similarity
    expected = source.cells.flatten(1).T @ target.cells.flatten(1)
    assert len(source.cells) == 17 * 24
    assert error(similarity.rows(similarity.source.centers()), expected) < CLOSE
    masks = (similarity.swap().foreground, similarity.foreground)
    assert [mask.tolist() for mask in masks] == [source.allowed, target.allowed]


def test_matches_by_slow_loops(dino, photo, other_photo):
    """Nearest salient cell there; nearest salient cell back; which of them are best buddies."""
    one, source, target = dino
    height, width = target.shape
    points = some_points(photo, 40)
    # the centres of all source cells that have a best buddy, and of some that have none
    product = source.cells.flatten(1).T @ target.cells.flatten(1)
    buddies = sorted(reference.best_buddies(product, source.allowed, target.allowed))[:15]
    points += [tuple(source.places[cell].tolist()) for cell, _ in buddies]
    points += [tuple(source.places[cell].tolist()) for cell in range(0, len(source.places), 23)]
    matches = one.pipeline.match(photo, other_photo, points)
    for index, point in enumerate(points):
        row, column = reference.confine(
            reference.to_cell(source.canvas, point, 8, 4), [True] * len(source.places), source.shape
        )
        values = reference.cosines(reference.read(source.cells, row, column), target.cells)
        cell = reference.best(values, target.allowed)
        allowed = [value for value, on in zip(values, target.allowed, strict=True) if on]
        elsewhere = [
            value
            for other, value in enumerate(values)
            if target.allowed[other]
            and max(abs(other // width - cell // width), abs(other % width - cell % width)) > 2
        ]
        back = reference.cosines(target.cells.flatten(1)[:, cell], source.cells)
        home = reference.best(back, source.allowed)
        own = round(row) * source.shape[1] + round(column)
        assert matches.target[index].tolist() == pytest.approx(target.places[cell].tolist())
        assert matches.score[index].item() == pytest.approx(values[cell], abs=CLOSE)
        assert matches.peak[index].item() == pytest.approx(
            values[cell] - sum(allowed) / len(allowed), abs=CLOSE
        )
        assert matches.margin[index].item() == pytest.approx(
            values[cell] - max(elsewhere), abs=CLOSE
        )
        assert matches.matched[index].item() == (home == own and values[cell] > 0)
        away = torch.dist(source.places[home], torch.tensor(point, dtype=torch.float64))
        assert matches.cycle_error[index].item() == pytest.approx(away.item(), abs=1e-6)
    assert 0 < matches.matched.sum() < len(points)
    assert height * width == len(target.places)


def dense(encoding: Encoding) -> Tensor:
    """Every seventh pixel of a photo, in both directions."""
    height, width = encoding.size
    rows, columns = torch.meshgrid(torch.arange(0, height, 7), torch.arange(0, width, 7))
    return torch.stack([columns, rows], dim=-1).reshape(-1, 2).double()


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_no_match_lands_where_nothing_is_salient(dino, photo, other_photo):
    one, source, target = dino
    encoding = one.pipeline.encode(photo)
    points = dense(encoding)
    fused = one.pipeline.fuse(encoding, other_photo)
    matches = fused.match(points)
    chosen = torch.cdist(matches.target, target.places).argmin(dim=1)
    assert torch.tensor(target.allowed)[chosen].all()
    free = dataclasses.replace(fused.similarity, source_foreground=None, foreground=None)
    anywhere = torch.cdist(Nearest()(free, points).target, target.places).argmin(dim=1)
    assert not torch.tensor(target.allowed)[anywhere].all()
    # from a cell that is not salient there is no way back to it
    own = fused.similarity.source.cell_of(points)
    salient = torch.tensor(source.allowed)[own]
    assert not matches.matched[~salient].any()
    assert matches.matched[salient].any()
    # without points, both ends are salient
    found = fused.match()
    assert len(found) > 0
    for places, side in ((found.source, source), (found.target, target)):
        cells = torch.cdist(places, side.places).argmin(dim=1)
        assert torch.tensor(side.allowed)[cells].all()


def test_the_original_s_best_buddies_are_matched(dino, photo, other_photo):
    """It looks for the nearest among all cells and drops pairs that are not salient on both sides.

    Ours looks among salient cells, so it has each of these pairs, and may have others.
    """
    one, source, target = dino
    product = source.cells.flatten(1).T @ target.cells.flatten(1)
    buddies = sorted(reference.best_buddies(product, source.allowed, target.allowed))
    assert len(buddies) > 5
    points = source.places[[cell for cell, _ in buddies]]
    matches = one.pipeline.match(photo, other_photo, points)
    assert matches.matched.all()
    expected = target.places[[cell for _, cell in buddies]]
    torch.testing.assert_close(matches.target, expected, rtol=0, atol=1e-6)


def test_a_predicted_point_is_pixel_4k_plus_4_of_the_canvas(dino, photo, other_photo):
    """dino-vit-features draws a match at 4 k + 4, counted from the canvas' edge.

    Counted from the centre of the first pixel, as here, that is 4 k + 3.5.
    """
    one, _, target = dino
    matches = one.pipeline.match(photo, other_photo, some_points(photo, 20))
    inner_height, inner_width = target.canvas.content
    height, width, _ = other_photo.shape
    x = (matches.target[:, 0] + 0.5) * inner_width / width
    y = (matches.target[:, 1] + 0.5) * inner_height / height
    for place, count in ((x, target.shape[1]), (y, target.shape[0])):
        cells = (place - 4) / 4
        torch.testing.assert_close(cells, cells.round(), rtol=0, atol=1e-9)
        assert cells.min() > -0.5
        assert cells.max() < count - 0.5

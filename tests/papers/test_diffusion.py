"""The recipes with Stable Diffusion compute what the papers compute, stage by stage.

Each stage is compared with ``reference_diffusion`` on the same tiny random weights, loaded by the
code that users run. Both sides round differently: 1e-4 is ten times what float32 costs here.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor

import sdcorr
from sdcorr.backbones._taps import read_layers
from sdcorr.backbones.dinov2 import Dinov2
from sdcorr.fused import Fused
from sdcorr.geometry import Size
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.pixel import Pixel
from sdcorr.matchers.soft_argmax import SoftArgmax
from sdcorr.pipeline import Pipeline
from sdcorr.preprocess import fit, load_image
from sdcorr.recipe import Recipe
from sdcorr.recipes import find_recipe
from sdcorr.types import Encoding, FeatureMap
from tests.conftest import ROOT
from tests.full_size import FULL_SIZE
from tests.papers import reference_diffusion as reference
from tests.papers.reference_diffusion import EIGHT, FIVE, PAPERS, SD_XL, TWO, Paper, Stages
from tests.tiny import Parts, shrink

CLOSE = 1e-4
DINO = "facebook/dinov2-base"
BY_CELL = [name for name, paper in PAPERS.items() if paper.match != "pixel"]
BY_PIXEL = [name for name, paper in PAPERS.items() if paper.match == "pixel"]
FUSED = [name for name, paper in PAPERS.items() if paper.dino]


def error(got: Tensor, expected: Tensor) -> float:
    """Relative to the expected values, all together."""
    assert got.shape == expected.shape
    return float((got.double() - expected).norm() / expected.norm())


def small(name: str) -> Recipe:
    """The recipe for tiny checkpoints, with grids that meet where those of the recipe meet."""
    recipe = shrink(find_recipe(name))
    first, *rest = recipe.groups
    size = reference.in_small(PAPERS[name]).size
    first = replace(first, backbone=replace(first.backbone, size=size))
    return replace(recipe, groups=(first, *rest))


@dataclass
class Seen:
    """What the models were given while a photo was encoded."""

    windows: list[Tensor] = field(default_factory=list)  # (1, 3, w, w) by window
    latents: list[Tensor] = field(default_factory=list)  # (B, 4, n, n) by pass of the UNet
    steps: list[float] = field(default_factory=list)
    texts: list[Tensor] = field(default_factory=list)
    added: list[dict[str, Tensor]] = field(default_factory=list)


def watch(pipeline: Pipeline, photo: np.ndarray, category: str | None) -> tuple[Encoding, Seen]:
    """The photo's maps, and what VAE and UNet saw on the way."""
    seen = Seen()

    def see_window(_module, inputs):
        seen.windows.append(inputs[0])

    def see_pass(_module, inputs, named):
        seen.latents.append(inputs[0])
        seen.steps.append(inputs[1])
        seen.texts.append(named["encoder_hidden_states"])
        seen.added.append(named.get("added_cond_kwargs", {}))

    backbone = next(iter(pipeline.backbones.values()))
    hooks = (
        backbone.vae.encoder.register_forward_pre_hook(see_window),
        backbone.unet.register_forward_pre_hook(see_pass, with_kwargs=True),
    )
    encoding = pipeline.encode(photo, category)
    for hook in hooks:
        hook.remove()
    return encoding, seen


@dataclass(frozen=True, eq=False)
class Both:
    """A recipe and its reference on two photos of a cat."""

    paper: Paper
    pipeline: Pipeline
    models: reference.Models
    encodings: list[Encoding]
    seen: list[Seen]
    stages: list[Stages]
    tokens: list[Tensor] | None
    descriptors: list[np.ndarray]

    @property
    def fused(self) -> Fused:
        return self.pipeline.fuse(*self.encodings)

    def maps(self, side: int) -> dict[str, Tensor]:
        """Of Stable Diffusion, as the recipe computes them."""
        group = self.pipeline.recipe.groups[0].name
        found = self.encodings[side].maps
        return {name: found[f"{group}/{name}"].values for name in self.paper.layers}


@pytest.fixture(scope="module")
def photos(photo, other_photo) -> tuple[np.ndarray, np.ndarray]:
    return photo, other_photo


@pytest.fixture(scope="module")
def load(checkpoints) -> Callable[..., Pipeline]:
    def of(name: str, **options) -> Pipeline:
        recipe = small(name)
        models = {key: str(checkpoints[one.model]) for key, one in recipe.weights.items()}
        return sdcorr.load(recipe, models=models, device="cpu", dtype="float32", **options)

    return of


@pytest.fixture(scope="module")
def both(checkpoints, load, photos) -> Callable[[str], Both]:
    @cache
    def of(name: str) -> Both:
        paper, pipeline = reference.in_small(PAPERS[name]), load(name)
        watched = [watch(pipeline, photo, "cat") for photo in photos]
        tuned = paper.tuned and checkpoints["CompVis/cleandift"] / paper.tuned
        models = reference.load(checkpoints[paper.model], tuned)
        stages = [reference.stages(models, paper, photo, paper.prompt) for photo in photos]
        tokens = None
        if paper.dino:
            dino = reference.load_dino(checkpoints[DINO])
            tokens = [reference.dino_tokens(dino, photo, paper.dino) for photo in photos]
        rows = reference.descriptors(paper, [one.maps for one in stages], tokens)
        encodings, seen = (list(one) for one in zip(*watched, strict=True))
        return Both(paper, pipeline, models, encodings, seen, stages, tokens, rows)

    return of


# The numbers of the recipes


@pytest.mark.parametrize("name", PAPERS)
def test_the_fields_are_the_papers_numbers(name):
    paper, recipe = PAPERS[name], find_recipe(name)
    group, *others = recipe.groups
    config = group.backbone
    window = config.window or config.size
    assert config.model == paper.model
    assert config.size == paper.size
    assert tuple((start, start + window) for start in config.starts) == paper.windows
    assert (config.fit, config.resample) == (
        ("letterbox", "lanczos") if paper.letterbox else ("stretch", "bicubic")
    )
    assert config.latent == ("sample" if paper.sampled else "mean")
    assert (config.step, config.seed) == (paper.step, 42)
    assert getattr(config, "ensemble", 1) == paper.draws
    assert getattr(config, "unet_file", None) == paper.tuned
    freeu = getattr(config, "freeu", ())
    assert {one.channels: (one.backbone, one.skip) for one in freeu} == paper.freeu
    assert tuple(use.name for use in group.maps) == paper.layers
    assert tuple(use.upsample for use in group.maps) == paper.steps
    assert {use.pca for use in group.maps} == {paper.kept}
    assert [one.name for one in others] == ["dinov2"] * bool(paper.dino)


@pytest.mark.parametrize("name", FUSED)
def test_dinov2_is_the_papers(name):
    _, dino = find_recipe(name).groups
    assert dino.backbone == Dinov2(
        DINO, size=840, fit="letterbox", block=11, norm=False, facet="token", positions="original"
    )
    assert [(use.name, use.pca, use.upsample) for use in dino.maps] == [("token", None, ())]


@pytest.mark.parametrize("name", PAPERS)
def test_groups_weigh_the_same_and_the_matcher_is_the_papers(name):
    recipe = find_recipe(name)
    assert {group.weight for group in recipe.groups} == {1.0}
    assert {group.unit for group in recipe.groups} == {PAPERS[name].match != "pixel"}
    matchers = {"cell": Nearest(), "soft": SoftArgmax(window=11, temperature=0.02)}
    assert recipe.matcher == (matchers | {"pixel": Pixel()})[PAPERS[name].match]


def test_the_published_numbers_of_channels():
    """768 of sd-dino's PCA and 3200 of geoaware, each with DINOv2's 768."""
    assert 3 * PAPERS["sd-dino"].kept == 768
    assert sum(SHAPES["geoaware"][layer][0] for layer in (EIGHT, FIVE, TWO)) == 3200


@pytest.mark.parametrize("name", PAPERS)
def test_prompts(name):
    config = find_recipe(name).groups[0].backbone
    assert config.prompt_for("cat") == PAPERS[name].prompt
    # the data set's own name of the folder, without an article of its own
    assert config.prompt_for("tvmonitor") == PAPERS[name].prompt.replace("cat", "tvmonitor")
    assert config.prompt_for(None) == ""


@pytest.mark.parametrize(("step", "signal", "noise"), [(100, 0.9456, 0.3252), (50, 0.9755, 0.2201)])
def test_the_published_noising(step, signal, noise):
    kept = reference.kept_signal(step)
    assert (kept**0.5, (1 - kept) ** 0.5) == pytest.approx((signal, noise), abs=5e-5)


# The photo on the canvas

# 840 or 960 times the ratio is k + 0.5 for some: 5/16 gives 262.5, 7/16 367.5, 33/128 247.5
SHAPES_OF_PHOTOS = [
    (375, 500), (500, 333), (313, 471), (5, 16), (7, 16), (16, 5), (33, 128), (128, 35), (40, 40),
    (1, 30), (700, 1000),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES_OF_PHOTOS, ids=str)
@pytest.mark.parametrize(
    ("size", "how"), [(840, "letterbox"), (960, "letterbox"), (768, "letterbox"), (768, "stretch")]
)
def test_canvas_at_the_papers_sizes(size, how, shape):
    photo = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    canvas = fit(load_image(photo), size, how, "lanczos" if how == "letterbox" else "bicubic")
    expected = reference.place(photo, size, how == "letterbox")
    assert canvas.corner == (expected.left, expected.top)
    assert canvas.content == (expected.height, expected.width)
    np.testing.assert_array_equal(canvas.pixels, expected.canvas)


def test_half_a_pixel_is_rounded_to_even():
    heights = [reference.place(np.zeros((h, 16, 3), np.uint8), 840, True).height for h in (5, 7)]
    assert heights == [262, 368]  # of 262.5 and 367.5


@pytest.mark.parametrize("shape", [(375, 500), (500, 333), (333, 500), (480, 640), (640, 200)])
def test_both_letterboxes_meet_cell_by_cell(shape):
    """960 and 840 px are rounded apart, yet the maps are joined as they are, as published."""
    image = load_image(np.zeros((*shape, 3), np.uint8))
    grids = [fit(image, 60 * cell, "letterbox").grid((60, 60), cell) for cell in (16, 14)]
    assert grids[0].agrees_with(grids[1], 0.25)


# Stage by stage


@pytest.mark.parametrize("name", PAPERS)
def test_the_vae_sees_the_windows(both, name):
    case = both(name)
    for seen, stage in zip(case.seen, case.stages, strict=True):
        assert len(seen.windows) == len(stage.windows) == len(case.paper.windows) ** 2
        for got, expected in zip(seen.windows, stage.windows, strict=True):
            torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", PAPERS)
def test_the_unet_sees_the_latents_of_each_draw(both, name):
    """Posterior, scale, noise, their order and their share, one pass for each draw."""
    case = both(name)
    for seen, stage in zip(case.seen, case.stages, strict=True):
        assert len(seen.latents) == len(stage.latents) == case.paper.draws
        for got, expected in zip(seen.latents, stage.latents, strict=True):
            assert error(got, torch.cat(expected)) < CLOSE


@pytest.mark.parametrize("name", PAPERS)
def test_the_unet_is_told_step_text_and_sizes(both, name):
    case = both(name)
    for seen, stage in zip(case.seen, case.stages, strict=True):
        assert set(seen.steps) == {case.paper.step}
        for text, added in zip(seen.texts, seen.added, strict=True):
            for one in text:
                assert error(one[None], stage.text) < CLOSE
            assert added.keys() == stage.added.keys()
            for key, expected in stage.added.items():
                assert error(added[key], expected) < CLOSE


@pytest.mark.parametrize("name", ["sd-dino", "dift", "cleandift-sd15", "sdxl"])
def test_without_a_category_the_unet_reads_the_empty_prompt(both, photos, name):
    case = both(name)
    _, seen = watch(case.pipeline, photos[1], None)
    with torch.no_grad():
        text, added = reference.conditions(case.models, case.paper, "")
    assert error(seen.texts[0][:1], text) < CLOSE
    for key, expected in added.items():
        assert error(seen.added[0][key], expected) < CLOSE
    assert error(text, case.stages[0].text) > 0.1


@pytest.mark.parametrize("name", PAPERS)
def test_maps(both, name):
    case = both(name)
    for side, stage in enumerate(case.stages):
        for layer, values in case.maps(side).items():
            assert error(values, stage.maps[layer]) < CLOSE, layer


@pytest.mark.parametrize("name", ["sd-dino", "geoaware", "cleandift-dino"])
def test_cells_of_one_window_are_its_own_and_shared_ones_are_means(both, name):
    """By hand, with two windows a side of 8 cells each that share 4: [0:8] and [4:12]."""
    case = both(name)
    got = case.maps(0)[EIGHT]
    first, second, third, fourth = (one[EIGHT][0] for one in case.stages[0].passes)
    assert got.shape[1:] == (12, 12)
    assert error(got[:, :4, :4], first[:, :4, :4]) < CLOSE
    assert error(got[:, :4, 8:], second[:, :4, 4:]) < CLOSE
    assert error(got[:, 8:, :4], third[:, 4:, :4]) < CLOSE
    two = (first[:, :4, 4:] + second[:, :4, :4]) / 2
    assert error(got[:, :4, 4:8], two) < CLOSE
    four = (first[:, 4:, 4:] + second[:, 4:, :4] + third[:, :4, 4:] + fourth[:, :4, :4]) / 4
    assert error(got[:, 4:8, 4:8], four) < CLOSE
    assert error(first[:, 4:, 4:], four) > 0.01  # the windows do not agree there


@pytest.mark.parametrize("name", FUSED)
def test_tokens(both, name):
    case = both(name)
    for encoding, expected in zip(case.encodings, case.tokens, strict=True):
        assert error(encoding.maps["dinov2/token"].values, expected) < CLOSE


def rows_of(feature_map: FeatureMap) -> np.ndarray:
    """Unit descriptors ``(h*w, C)``."""
    return reference.to_unit(feature_map.values.flatten(1).T.double().numpy())


@pytest.mark.parametrize("name", PAPERS)
def test_cosines_of_all_cells_of_both_photos(both, name):
    """Padding included; the joint PCA is an exact SVD of all cells in the reference."""
    case = both(name)
    similarity = case.fused.similarity
    source, target = rows_of(similarity.source_map), rows_of(similarity.target_map)
    expected = case.descriptors[0] @ case.descriptors[1].T
    assert error(torch.tensor(source @ target.T), torch.tensor(expected)) < CLOSE
    assert np.abs(source @ target.T - expected).max() < CLOSE < expected.std() / 100
    inside = similarity.source.inside()
    rows = similarity.rows(similarity.source.centers()[inside]).numpy()
    np.testing.assert_allclose(rows, expected[inside], rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", ["geoaware", "cleandift-dino"])
def test_descriptors_are_layers_8_5_2_then_dinov2(both, name):
    case = both(name)
    rows = rows_of(case.fused.similarity.source_map)
    assert rows.shape[1] == 32 + 64 + 64 + 24
    assert error(torch.tensor(rows), torch.tensor(case.descriptors[0])) < CLOSE


@pytest.mark.parametrize("name", ["sd-dino", "sd-dino-single"])
def test_reduced_descriptors_are_layers_8_5_2_then_dinov2(both, name):
    """Principal directions have no sign."""
    case = both(name)
    rows = rows_of(case.fused.similarity.source_map)
    assert rows.shape[1] == 8 + 8 + 8 + 24
    assert error(torch.tensor(rows).abs(), torch.tensor(case.descriptors[0]).abs()) < CLOSE


# The reference itself


@pytest.mark.parametrize("model", [reference.SD_15, reference.SD_21, SD_XL])
def test_the_hand_written_unet_is_the_unet(checkpoints, model):
    models = reference.load(checkpoints[model])
    latents = torch.randn(1, 4, 20, 12, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        text, added = reference.conditions(models, PAPERS["sdxl"], "a photo of dog")
        found = reference.run_unet(models.unet, latents, 261.5, text, added, freeu={})
        named = {"added_cond_kwargs": added} if added else {}
        whole = models.unet(latents, 261.5, encoder_hidden_states=text, **named).sample
    assert error(found["out"], whole) < 1e-6  # diffusers computes waves of the step in float32


CHANGES = [
    ("sd-dino", {"noised": False}),
    ("sd-dino", {"sampled": True}),
    ("sd-dino", {"step": 101}),
    ("sd-dino", {"prompt": "a photo of dog"}),
    ("sd-dino", {"windows": ((0, 192),)}),
    ("geoaware", {"freeu": {}}),
    ("geoaware", {"freeu": {64: (1.2, 0.9), 32: (1.4, 1.0)}}),
    ("geoaware", {"freeu": {64: (1.2, 1.0), 32: (1.4, 0.2)}}),
    ("cleandift-dino", {"noised": True}),
    ("cleandift-dino", {"tuned": None}),
    ("cleandift-sd21", {"step": 262}),
    ("cleandift-sd21", {"sampled": False}),
    ("dift", {"letterbox": True}),
    ("dift", {"draws": 7}),
    ("sdxl", {"step": 51}),
]


@pytest.mark.parametrize(("name", "changes"), CHANGES, ids=str)
def test_another_computation_gives_other_maps(both, checkpoints, photos, name, changes):
    """A tolerance that passes a wrong computation proves nothing."""
    case = both(name)
    paper = replace(case.paper, **changes)
    tuned = paper.tuned and checkpoints["CompVis/cleandift"] / paper.tuned
    models = reference.load(checkpoints[paper.model], tuned)
    stage = reference.stages(models, paper, photos[1], paper.prompt)
    other = max(error(values, stage.maps[layer]) for layer, values in case.maps(1).items())
    assert other > 5 * CLOSE


def test_one_step_by_four_is_not_two_steps_by_two(both):
    case = both("geoaware")
    maps = [one.maps for one in case.stages]
    twice = replace(case.paper, steps=((), (2,), (2, 2)))
    rows = reference.descriptors(twice, maps, case.tokens)
    cosines = [one[0] @ one[1].T for one in (rows, case.descriptors)]
    assert np.abs(cosines[0] - cosines[1]).max() > 100 * CLOSE


# Matching


def placed_points(case: Both, side: int, cells: np.ndarray) -> np.ndarray:
    """Photo pixels of (column, row) on the canvas of Stable Diffusion, by pixel centres."""
    placed, photo = case.stages[side].placed, case.encodings[side].size
    cell = case.paper.size / case.maps(side)[case.paper.layers[0]].shape[-1]
    scale = np.array([photo.width / placed.width, photo.height / placed.height])
    return ((cells + 0.5) * cell - (placed.left, placed.top)) * scale - 0.5


def on_photo(points: np.ndarray, photo: Size) -> np.ndarray:
    return np.clip(points, -0.5, (photo.width - 0.5, photo.height - 0.5))


@pytest.mark.parametrize("name", BY_CELL)
def test_each_cell_finds_the_papers_cell_or_place(both, name):
    """Padding may be matched, as published."""
    case = both(name)
    similarity = case.fused.similarity
    inside = similarity.source.inside()
    matcher = replace(case.pipeline.recipe.matcher, inside_only=False)
    matches = matcher(similarity, similarity.source.centers()[inside])
    rows = (case.descriptors[0] @ case.descriptors[1].T)[inside]
    side = similarity.target.shape[1]
    if case.paper.match == "soft":
        cells = np.array([reference.soft_place(row, side) for row in rows])
    else:
        cells = np.stack([rows.argmax(axis=1) % side, rows.argmax(axis=1) // side], axis=1)
    expected = on_photo(placed_points(case, 1, cells), case.encodings[1].size)
    assert len(expected) > 30
    # a similarity that moves by 1e-5 moves a soft place by up to 1e-5 / 0.02 of five cells
    pixels = 0.1 if case.paper.match == "soft" else 1e-6
    np.testing.assert_allclose(matches.target.numpy(), expected, rtol=0, atol=pixels)
    np.testing.assert_allclose(matches.score.numpy(), rows.max(axis=1), rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", BY_CELL)
def test_a_point_between_cells_is_read_bilinearly(both, name):
    """A documented deviation: the papers read the cell that holds the point."""
    case = both(name)
    similarity = case.fused.similarity
    columns, rows = (similarity.source.inside().reshape(similarity.source.shape).any(axis).nonzero()
                     for axis in (0, 1))  # fmt: skip
    spread = np.random.default_rng(0).random((10, 2))
    low = np.array([columns.min().item(), rows.min().item()])
    high = np.array([columns.max().item(), rows.max().item()])
    places = low + spread * (high - low)
    shape = similarity.source.shape
    values = case.descriptors[0].reshape(*shape, -1)
    queries = []
    for column, row in places:
        x, y = int(column), int(row)
        right, down = column - x, row - y
        upper = (1 - right) * values[y, x] + right * values[y, x + 1]
        lower = (1 - right) * values[y + 1, x] + right * values[y + 1, x + 1]
        queries.append((1 - down) * upper + down * lower)
    expected = reference.to_unit(np.array(queries)) @ case.descriptors[1].T
    got = similarity.rows(torch.tensor(placed_points(case, 0, places)))
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", [name for name in BY_CELL if PAPERS[name].match == "cell"])
def test_the_cell_that_holds_the_point_as_published(both, name):
    """``sample="cell"``: floor(60/840 x') in the paper's frame, x' = s x + offset."""
    case = both(name)
    similarity, size = case.fused.similarity, case.encodings[0].size
    side = similarity.source.shape[0]
    placed = case.stages[0].placed
    scale, cell = case.paper.size / max(size), case.paper.size / side
    generator = np.random.default_rng(0)
    points, cells = [], []
    while len(points) < 20:
        point = generator.integers(0, (size.width, size.height))
        framed = (scale * point + (placed.left, placed.top)) / cell
        clear = np.abs(framed - np.round(framed)).min() * cell > scale  # a photo pixel
        column, row = np.minimum(np.floor(framed), side - 1).astype(int)
        if clear and similarity.source.inside()[row * side + column]:
            points.append(point)
            cells.append(row * side + column)
    matcher = Nearest(inside_only=False, sample="cell")
    got = matcher(similarity, torch.tensor(np.array(points)).double())
    best = case.descriptors[0][cells] @ case.descriptors[1].T
    expected = np.stack([best.argmax(axis=1) % side, best.argmax(axis=1) // side], axis=1)
    expected = on_photo(placed_points(case, 1, expected), case.encodings[1].size)
    np.testing.assert_allclose(got.target.numpy(), expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(got.score.numpy(), best.max(axis=1), rtol=0, atol=CLOSE)


POINTS = [
    (0, 0), (470, 0), (0, 312), (470, 312), (235, 156), (31, 200), (400, 77), (120, 301), (333, 11),
    (58, 59), (240, 84), (185, 268),
]  # fmt: skip


@pytest.mark.parametrize("name", BY_PIXEL)
def test_each_point_finds_the_papers_pixel(both, photos, name):
    """Both maps as large as their photos; whole pixels, and none added."""
    case = both(name)
    (layer,) = case.paper.layers
    maps = [
        reference.enlarge(stage.maps[layer], photo)
        for stage, photo in zip(case.stages, photos, strict=True)
    ]
    matches = case.fused.match(POINTS)
    told = 0
    for point, place, score in zip(POINTS, matches.target, matches.score, strict=True):
        expected, best, lead = reference.nearest_pixel(*maps, point)
        assert score.item() == pytest.approx(best, abs=CLOSE)
        # pixels at the border are equal; elsewhere float32 may not tell neighbours apart
        if lead == 0 or lead > 1e-6:
            told += 1
            assert tuple(place.tolist()) == expected
    assert told >= len(POINTS) - 2


# Half a pixel, and what leaks: where the recipes differ, and by how much


SIZES = [(333, 500), (375, 500), (500, 375), (487, 499), (213, 640), (700, 1000)]


def long_axis(shape: tuple[int, int]) -> int:
    return 0 if shape[1] >= shape[0] else 1


@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize(("inset", "paper"), [(6.5, "sd-dino"), (7.0, "geoaware")])
def test_cells_lie_half_a_pixel_from_where_the_papers_say(shape, inset, paper):
    """14 k + 6.5 (sd-dino) or 14 k + 7 (geoaware) in the frame of 840 px, x = (x' - offset) / s.

    Here pixel centres: the middle of cell k is the edge 14 k + 7, and x + 0.5 = (x' - offset) / s.
    So the difference is 0.5 / s - 0.5 photo pixels for sd-dino, half a photo pixel for geoaware,
    exactly where the photo fills the canvas. Across, both letterboxes are rounded to whole pixels,
    and the recipes' cells are those of the one of 960 px: less than one more canvas pixel.
    """
    grid = fit(load_image(np.zeros((*shape, 3), np.uint8)), 960, "letterbox").grid((60, 60), 16)
    scale = 840 / max(shape)
    offset = (840 - round(min(shape) * scale)) // 2
    axis = long_axis(shape)
    ours = grid.centers()[grid.inside()].numpy()
    index = np.stack([np.arange(3600) % 60, np.arange(3600) // 60], axis=1)[grid.inside()]
    published = (14 * index + inset) / scale
    published[:, 1 - axis] -= offset / scale
    half = (7 - inset) / scale - 0.5
    np.testing.assert_allclose((ours - published)[:, axis], half, rtol=0, atol=1e-9)
    across = (ours - published)[:, 1 - axis] - half
    assert np.abs(across).max() * scale < 1
    if paper == "sd-dino" and scale < 2:
        assert abs(half) * scale < 0.5  # of a canvas pixel
    else:
        assert abs(half) <= 0.5  # of a photo pixel


@pytest.mark.parametrize("shape", SIZES, ids=str)
def test_points_fall_in_the_papers_cells_but_for_half_a_pixel(shape):
    """floor(60/840 s x), clamped to 59; another cell only where half a photo pixel decides."""
    grid = fit(load_image(np.zeros((*shape, 3), np.uint8)), 960, "letterbox").grid((60, 60), 16)
    axis, scale = long_axis(shape), 840 / max(shape)
    along = np.arange(max(shape))
    points = np.full((len(along), 2), (min(shape) - 1) / 2)
    points[:, axis] = along
    cells = grid.cell_of(torch.tensor(points)).numpy()
    ours = cells % 60 if axis == 0 else cells // 60
    place = 60 / 840 * scale * along
    published = np.minimum(np.floor(place), 59)
    differs = ours != published
    assert ((ours - published)[differs] == 1).all()
    to_edge = np.ceil(place[differs]) - place[differs]
    assert (to_edge * max(shape) / 60 <= 0.5 + 1e-9).all()
    assert differs.mean() < 0.5 * 60 / max(shape) + 0.02  # half a pixel of each cell


@dataclass(frozen=True)
class Rows:
    """Hand-made similarities of any points to 60 x 60 cells of 14 px."""

    row: Tensor
    target = source = fit(
        load_image(np.zeros((840, 840, 3), np.uint8)), 840, "letterbox"
    ).grid((60, 60), 14)  # fmt: skip
    foreground = None

    def rows(self, points: Tensor) -> Tensor:
        return self.row.expand(len(points), -1)

    def swap(self) -> Rows:
        return self


@pytest.mark.parametrize(
    ("peak", "low", "high"), [(0.9, 0, 1e-6), (0.5, 0, 1e-6), (0.2, 0.1, 2), (0.1, 5, 30)]
)
def test_the_published_soft_argmax_leaks_where_the_peak_is_low(peak, low, high):
    """It multiplies similarities outside by 0 and keeps them, 3479 weights of exp(-peak / 0.02).

    Excluded, they move nothing, whatever the peak; with a peak of 0.9 both are one.
    """
    rows, columns = np.divmod(np.arange(3600), 60)
    hill = np.exp(-((rows - 12) ** 2 + (columns - 17) ** 2) / (2 * 3**2))
    row = peak * hill
    excluding = np.array(reference.soft_place(row, 60))
    leaking = np.array(reference.soft_place(row, 60, leaking=True))
    np.testing.assert_allclose(excluding, (17, 12), rtol=0, atol=1e-6)  # the hill is even
    assert low <= math.dist(excluding, leaking) <= high
    similarity = Rows(torch.tensor(row).float())
    (found,) = SoftArgmax()(similarity, torch.zeros(1, 2).double()).target.numpy()
    np.testing.assert_allclose(found, 14 * excluding + 6.5, rtol=0, atol=1e-3)  # pixel centres


# The real architectures

SHAPES = {  # channels, and cells a side, of one window
    "sd-dino": {TWO: (1280, 8), FIVE: (1280, 16), EIGHT: (640, 32)},
    "sd-dino-single": {TWO: (1280, 15), FIVE: (1280, 30), EIGHT: (640, 60)},
    "geoaware": {TWO: (1280, 8), FIVE: (1280, 16), EIGHT: (640, 32)},
    "cleandift-dino": {TWO: (1280, 8), FIVE: (1280, 16), EIGHT: (640, 32)},
    "dift": {"up_blocks.1": (1280, 48)},
    "cleandift-sd21": {"up_blocks.1": (1280, 48)},
    "cleandift-sd15": {"up_blocks.1": (1280, 32)},
    "sd15": {"up_blocks.1": (1280, 48)},
    "sd21": {"up_blocks.1": (1280, 48)},
    "sd-turbo": {"up_blocks.1": (1280, 48)},
    "sdxl": {"up_blocks.0": (1280, 48)},
}


@pytest.fixture(scope="module")
def real_unet() -> Callable[[str], torch.nn.Module]:
    """The UNet of a hub id at its real size, without memory."""

    @cache
    def make(maker: Callable[[], Parts]) -> torch.nn.Module:
        with torch.device("meta"):
            return maker()["unet"]

    return lambda model: make(FULL_SIZE[model])  # one for ids of one architecture


@pytest.mark.parametrize("name", PAPERS)
def test_layers_of_the_real_architectures(real_unet, name):
    config = find_recipe(name).groups[0].backbone
    unet = real_unet(config.model)
    side = (config.window or config.size) // 8
    named = {}
    if config.model == SD_XL:
        named["added_cond_kwargs"] = {
            "text_embeds": torch.zeros(1, 1280, device="meta"),
            "time_ids": torch.zeros(1, 6, device="meta"),
        }
    text = torch.zeros(1, 77, unet.config.cross_attention_dim, device="meta")
    latents = torch.zeros(1, 4, side, side, device="meta")
    found = read_layers(
        unet, config.layers, lambda: unet(latents, 50, encoder_hidden_states=text, **named)
    )
    shapes = {layer: tuple(values.shape) for layer, values in found.items()}
    expected = SHAPES[name].items()
    assert shapes == {layer: (1, channels, cells, cells) for layer, (channels, cells) in expected}


# The same again


@pytest.mark.parametrize("name", PAPERS)
def test_bit_for_bit_after_another_photo_and_from_the_cache(both, load, photos, tmp_path, name):
    case = both(name)  # the other photo was encoded since
    first = case.encodings[0].maps
    cached = load(name, cache=tmp_path)
    again = [case.pipeline.encode(photos[0], "cat")]
    again += [cached.encode(photos[0], "cat") for _ in range(2)]
    for encoding in again:
        assert encoding.maps.keys() == first.keys()
        for key, one in first.items():
            assert torch.equal(encoding.maps[key].values, one.values), key
            assert encoding.maps[key].grid == one.grid
    (store,) = {backbone.store for backbone in cached.backbones.values()}
    assert store.hits == len(cached.backbones)  # the second time


def digest(maps: dict[str, FeatureMap]) -> str:
    parts = [one.values.numpy().tobytes() for _, one in sorted(maps.items())]
    return hashlib.sha256(b"".join(parts)).hexdigest()


ELSEWHERE = """
import json, sys
import numpy as np
import torch
torch.set_num_threads(1)
import sdcorr
from tests.papers.test_diffusion import digest, small
photo, places = sys.argv[1], json.loads(sys.argv[2])
found = {}
for name, models in places.items():
    pipeline = sdcorr.load(small(name), models=models, device="cpu", dtype="float32")
    found[name] = digest(pipeline.encode(np.load(photo), "cat").maps)
print(json.dumps(found))
"""


def test_bit_for_bit_in_another_process(both, checkpoints, photos, tmp_path):
    names = ("geoaware", "sdxl")
    np.save(tmp_path / "photo.npy", photos[0])
    places = {
        name: {key: str(checkpoints[one.model]) for key, one in small(name).weights.items()}
        for name in names
    }
    command = [sys.executable, "-c", ELSEWHERE, tmp_path / "photo.npy", json.dumps(places)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = {name: digest(both(name).encodings[0].maps) for name in names}
    assert json.loads(done.stdout.splitlines()[-1]) == expected

"""What DINO, DINOv2, DINOv3 and ViT share: grids, position tables, fields, checkpoints."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sdcorr.backbones.dinov2
import sdcorr.backbones.dinov3
import sdcorr.backbones.vit
from sdcorr.backbones._positions import grid_shape, resize_positions
from sdcorr.backbones._transformer import (
    Transformer,
    TransformerBackbone,
    TransformerConfig,
)
from sdcorr.backbones.dinov2 import Dinov2
from sdcorr.backbones.dinov3 import Dinov3
from sdcorr.backbones.vit import Vit
from sdcorr.errors import BadCheckpoint, BadImage, BadRecipe
from sdcorr.fusion import Group, MapUse
from sdcorr.models import Checkpoint
from sdcorr.preprocess import load_image
from sdcorr.recipe import Recipe
from sdcorr.recipes import find_recipe
from sdcorr.runtime import Runtime
from tests.full_size import FULL_SIZE
from tests.papers import reference_transformers as reference
from tests.tiny import dinov2_parts, dinov3_parts, vit_parts, write

MAKERS: dict[str, tuple[TransformerConfig, Callable[..., dict[str, Any]]]] = {
    "dinov2": (Dinov2(size=84, block=1), dinov2_parts),
    "registers": (Dinov2(size=84, block=1), lambda **more: dinov2_parts(True, **more)),
    "dinov3": (Dinov3(size=96, block=1), dinov3_parts),
    "vit": (Vit(size=48, block=1), vit_parts),
}
NAMES = list(MAKERS)
ONE_BLOCK = {"num_hidden_layers": 1}
ONE_STAGE = {"out_features": ["stage1"], "out_indices": [1], "stage_names": ["stem", "stage1"]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Two blocks of each, with weights of which each counts."""
    root = tmp_path_factory.mktemp("two-blocks")
    for name, (_, parts) in MAKERS.items():
        write(root / "plain" / name, parts(num_hidden_layers=2))
        reference.rewrite(root / "plain" / name, root / name, reference.randomise)
    return {name: root / name for name in MAKERS}


def config_of(name: str, folder: Path, **changes: Any) -> Any:
    return dataclasses.replace(MAKERS[name][0], model=str(folder), **changes)


def extract(config: TransformerConfig, photo: np.ndarray) -> torch.Tensor:
    (maps,) = config.build(Runtime()).extract([load_image(photo)])
    return maps[config.facet].values


# -- grids -------------------------------------------------------------------------------------


def test_grid_shape_counts_patches():
    for patch in (8, 14, 16):
        for stride in (divisor for divisor in range(1, patch + 1) if patch % divisor == 0):
            for height, width in ((patch, patch), (3 * patch, 5 * patch + 3), (224, 337)):
                rows = len(range(0, height - patch + 1, stride))
                columns = len(range(0, width - patch + 1, stride))
                assert grid_shape((height, width), patch, stride) == (rows, columns)


# -- position tables ---------------------------------------------------------------------------


def table_of(side: int, channels: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 1 + side * side, channels, generator=generator)


@pytest.mark.parametrize("how", ["original", "transformers", "antialiased"])
@pytest.mark.parametrize(
    ("stored", "shape"),
    [(37, (60, 60)), (37, (12, 12)), (37, (20, 51)), (28, (55, 83)), (28, (9, 14)), (14, (40, 40))],
    ids=str,
)
def test_tables_equal_a_written_out_bicubic(how, stored, shape):
    """Scale (n + 0.1) / stored by axis for the original; a kernel that grows for antialiasing."""
    table = table_of(stored)
    expected = reference.resize_table(table[0].double(), shape, how)
    got = resize_positions(table, shape, how)
    assert got.shape == (1, 1 + shape[0] * shape[1], 5)
    assert torch.equal(got[:, 0], table[:, 0])
    error = (got[0].double() - expected).norm() / expected.norm()
    assert error < 1e-4
    for other in {"original", "transformers", "antialiased"} - {how}:
        wrong = reference.resize_table(table[0].double(), shape, other)
        assert (got[0].double() - wrong).norm() / wrong.norm() > 1e-3


@pytest.mark.parametrize("stored", [14, 28, 37])
def test_the_offset_of_a_tenth_never_adds_a_row(stored):
    table = table_of(stored, channels=1)
    for side in range(1, 130):
        assert resize_positions(table, (side, 131 - side), "original").shape[1] == 1 + side * (
            131 - side
        )


@pytest.mark.parametrize("size", [(168, 168), (140, 252), (840, 420)], ids=str)
@pytest.mark.parametrize("name", ["dinov2", "registers", "vit"])
def test_tables_of_transformers_are_its_own(name, size):
    from transformers import Dinov2Model, Dinov2WithRegistersModel, ViTModel

    kinds = {"dinov2": Dinov2Model, "registers": Dinov2WithRegistersModel, "vit": ViTModel}
    model = MAKERS[name][1](num_hidden_layers=1)[""]
    assert isinstance(model, kinds[name])
    patch = model.config.patch_size
    shape = tuple(side // patch for side in size)
    tokens = torch.empty(1, 1 + shape[0] * shape[1], model.config.hidden_size)
    with torch.no_grad():
        expected = model.embeddings.interpolate_pos_encoding(tokens, *size)
        how = "antialiased" if name == "registers" else "transformers"
        got = resize_positions(model.embeddings.position_embeddings, shape, how)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("how", ["original", "transformers", "antialiased"])
def test_tables_in_half_precision_are_resized_in_full(how):
    half = table_of(37).bfloat16()
    expected = resize_positions(half.float(), (12, 17), how).bfloat16()
    got = resize_positions(half, (12, 17), how)
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, expected)


# -- fields that do not fit --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("dinov2", {"block": 2}, r"dinov2: block must be in 0\.\.1 for .*, got 2"),
        ("dinov3", {"block": 12}, r"dinov3: block must be in 0\.\.1 for .*, got 12"),
        ("vit", {"block": -1}, r"vit: block must be in 0\.\.1 for .*, got -1"),
        ("registers", {"block": -2}, r"block must be in 0\.\.1 for .*, got -2"),
        ("dinov2", {"stride": 4}, "dinov2: stride must divide the patch, 14 px, got 4"),
        ("dinov3", {"stride": 32}, "dinov3: stride must divide the patch, 16 px, got 32"),
        ("vit", {"stride": 3}, "vit: stride must divide the patch, 8 px, got 3"),
        ("dinov2", {"stride": 0}, "stride must divide the patch, 14 px, got 0"),
        ("dinov3", {"stride": 0}, "stride must divide the patch, 16 px, got 0"),
        ("vit", {"stride": -4}, "stride must divide the patch, 8 px, got -4"),
        ("dinov2", {"size": 100}, "size must be a multiple of the patch, 14 px, got 100"),
        ("dinov3", {"size": 840}, "size must be a multiple of the patch, 16 px, got 840"),
        ("vit", {"size": 4}, "size must be a multiple of the patch, 8 px, got 4"),
        ("vit", {"size": 0}, "size must be a multiple of the patch, 8 px, got 0"),
        ("dinov2", {"size": -14}, "size must be a multiple of the patch, 14 px, got -14"),
        ("dinov2", {"norm": True, "facet": "key"}, "norm is of the tokens, not of the facet 'key'"),
        ("dinov3", {"facet": "value"}, "norm is of the tokens, .* 'value'; set it to false"),
        ("vit", {"norm": True, "facet": "query"}, "norm is of the tokens, not .* 'query'"),
    ],
)
def test_fields_that_do_not_fit_the_model(folders, name, changes, message):
    with pytest.raises(BadRecipe, match=message):
        config_of(name, folders[name], **changes).build(Runtime())


@pytest.mark.parametrize("kind", [Dinov2, Dinov3])
def test_dinov2_and_dinov3_have_square_canvases_alone(kind):
    with pytest.raises(BadRecipe, match=r"fit must be one of letterbox, stretch, got 'shorter'"):
        Recipe("mine", (Group("a", kind(fit="shorter"), (MapUse("token"),)),))


def test_a_photo_longer_than_eight_to_one_is_refused(folders):
    config = config_of("vit", folders["vit"], fit="shorter", size=16, stride=8)
    backbone = config.build(Runtime())
    for shape in ((10, 80, 3), (80, 10, 3)):  # just short enough
        (maps,) = backbone.extract([load_image(np.zeros(shape, np.uint8))])
        assert sorted(maps["token"].grid.shape) == [2, 16]
    for shape, words in (((10, 81, 3), "81 x 10"), ((81, 10, 3), "10 x 81")):
        with pytest.raises(BadImage, match=f"a photo of {words} px is too long and thin"):
            backbone.extract([load_image(np.zeros(shape, np.uint8))])
    (maps,) = (
        config_of("vit", folders["vit"])
        .build(Runtime())
        .extract([load_image(np.zeros((10, 810, 3), np.uint8))])
    )
    assert maps["token"].grid.shape == (6, 6)  # a letterbox takes any


# -- checkpoints -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "other", "kind"),
    [
        ("dinov2", "dinov3", "dinov3_vit"),
        ("dinov2", "vit", "vit"),
        ("dinov3", "dinov2", "dinov2"),
        ("dinov3", "vit", "vit"),
        ("vit", "registers", "dinov2_with_registers"),
        ("vit", "dinov3", "dinov3_vit"),
    ],
)
def test_a_checkpoint_of_another_type_is_refused_by_name(folders, name, other, kind):
    with pytest.raises(BadCheckpoint, match=f"holds a model of type '{kind}'; expected"):
        config_of(name, folders[other]).build(Runtime())


def test_relatives_that_look_alike_are_refused_by_name(folders, tmp_path):
    for name, kind in (("vit", "deit"), ("dinov3", "dinov3_convnext"), ("dinov2", "vit_mae")):
        folder = reference.rewrite(folders[name], tmp_path / kind, model_type=kind)
        with pytest.raises(BadCheckpoint, match=f"of type '{kind}'; expected {name}"):
            config_of(name, folder).build(Runtime())


@pytest.mark.parametrize("name", NAMES)
def test_each_weight_but_the_mask_token_is_needed(folders, tmp_path, name):
    """Of one block, and of what is beside the blocks; transformers would draw it at random."""
    names = reference.Model(folders[name]).weights
    blocks = reference.Model(folders[name]).names.block
    chosen = [one for one in names if not one.startswith(f"{blocks}.0")]
    for number, missing in enumerate(chosen):
        folder = reference.rewrite(
            folders[name],
            tmp_path / str(number),
            lambda tensors, missing=missing: {
                key: value for key, value in tensors.items() if key != missing
            },
        )
        if missing == "embeddings.mask_token":
            config_of(name, folder).build(Runtime())
            continue
        with pytest.raises(BadCheckpoint, match=r"is no whole \w+: 1 weights are missing, first '"):
            config_of(name, folder).build(Runtime())


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("dinov2", ""), ("registers", ""), ("dinov3", ""), ("vit", ""), ("dinov2", "dinov2."),
     ("registers", "dinov2_with_registers."), ("vit", "vit.")],
)  # fmt: skip
def test_a_config_with_fewer_blocks_than_the_file_is_refused(folders, tmp_path, name, prefix):
    """Else block 11 of 12 would be the last of a ViT that is cut short; with a head or without."""
    stages = {} if name == "vit" else ONE_STAGE
    folder = reference.rewrite(
        folders[name],
        tmp_path / "short",
        lambda tensors: {f"{prefix}{key}": value for key, value in tensors.items()},
        **ONE_BLOCK | stages,
    )
    with pytest.raises(BadCheckpoint, match="weights that its config has no place for"):
        config_of(name, folder, block=0).build(Runtime())


@pytest.mark.parametrize("name", ["dinov2", "vit"])
def test_a_weight_of_another_shape_is_named(folders, tmp_path, name):
    folder = reference.rewrite(
        folders[name],
        tmp_path / "shape",
        lambda tensors: tensors | {"layernorm.weight": torch.ones(7)},
    )
    with pytest.raises(BadCheckpoint, match=r"layernorm\.weight"):
        config_of(name, folder).build(Runtime())


@pytest.mark.parametrize(
    "changes", [{"image_size": [224, 112]}, {"patch_size": [8, 8]}, {"num_channels": 1}], ids=str
)
def test_a_checkpoint_that_cannot_read_photos_is_refused(tmp_path, changes):
    """A table that is not square, patches that are not, one colour: told before the first photo."""
    folder = write(tmp_path / "odd", vit_parts(num_hidden_layers=2, **changes))
    (field,) = changes
    with pytest.raises(BadCheckpoint, match=field):
        config_of("vit", folder).build(Runtime())


@pytest.mark.parametrize(
    "statistics",
    [{"image_mean": [0.5]}, {"image_std": [0.1, 0, 0.1]}, {"image_mean": "imagenet"}],
    ids=str,
)
def test_statistics_that_are_none_are_refused(folders, tmp_path, statistics):
    folder = reference.rewrite(folders["vit"], tmp_path / "odd")
    (folder / "preprocessor_config.json").write_text(json.dumps(statistics))
    with pytest.raises(BadCheckpoint, match="image_mean"):
        config_of("vit", folder).build(Runtime())


# -- real sizes --------------------------------------------------------------------------------


@pytest.fixture
def full_size(monkeypatch) -> Callable[[TransformerConfig], TransformerBackbone]:
    """A backbone whose model has the hub's own size, and no numbers."""

    def build(config: TransformerConfig) -> TransformerBackbone:
        with torch.device("meta"):
            model = FULL_SIZE[config.model]()[""].eval()
        module = {
            Dinov2: sdcorr.backbones.dinov2,
            Dinov3: sdcorr.backbones.dinov3,
            Vit: sdcorr.backbones.vit,
        }[type(config)]
        kind = model.config.model_type
        monkeypatch.setattr(module, "check_type", lambda folder, known: kind)
        monkeypatch.setattr(module, "load_part", lambda *_, **__: model)
        runtime, folder = Runtime(device=torch.device("meta")), Path("nowhere")
        transformer = config.load(folder, runtime)
        assert not list(config.problems(transformer))
        mean = torch.zeros(3, 1, 1)
        kinds = {Vit: sdcorr.backbones.vit.VitBackbone}
        backbone = kinds.get(type(config), TransformerBackbone)
        return backbone(
            config, runtime, Checkpoint(config.model, folder, ""), transformer, mean, mean
        )

    return build


@pytest.mark.parametrize(
    ("name", "shape", "channels", "blocks"),
    [
        ("dinov2-s", (60, 60), 384, "encoder.layer.{}"),
        ("dinov2-b", (60, 60), 768, "encoder.layer.{}"),
        ("dinov2-b-registers", (60, 60), 768, "encoder.layer.{}"),
        ("dinov2-l", (60, 60), 1024, "encoder.layer.{}"),
        ("dinov2-g", (60, 60), 1536, "encoder.layer.{}"),
        ("dinov3-s", (48, 48), 384, "model.layer.{}"),
        ("dinov3-b", (48, 48), 768, "model.layer.{}"),
        ("dinov3-l", (48, 48), 1024, "model.layer.{}"),
        ("vit", (40, 40), 768, "layers.{}"),
        ("dino-v1", (55, 83), 384, "layers.{}"),
    ],
)
def test_blocks_and_shapes_at_the_real_size(full_size, name, shape, channels, blocks):
    """840 px in patches of 14; 768 and 640 in patches of 16; 224 x 337 in steps of 4."""
    (config,) = find_recipe(name).backbones.values()
    backbone = full_size(config)
    transformer = backbone.transformer
    assert transformer.blocks == tuple(blocks.format(k) for k in range(len(transformer.blocks)))
    assert len(transformer.blocks) == transformer.config.num_hidden_layers
    if name != "dino-v1":
        assert config.block == len(transformer.blocks) - 1
    canvas = (224, 337) if name == "dino-v1" else (config.size, config.size)
    maps = backbone.read(torch.empty(2, 3, *canvas, device="meta"))
    assert tuple(maps) == config.maps
    assert maps[config.facet].shape == (2, shape[0] * shape[1], channels)
    assert backbone.channels[config.facet] == channels
    if name == "dino-v1":
        assert maps["saliency"].shape == (2, 55 * 83, 1)


@pytest.mark.parametrize("facet", ["query", "key", "value"])
@pytest.mark.parametrize("name", ["dinov2-b", "dinov3-b", "vit"])
def test_facets_at_the_real_size(full_size, name, facet):
    (config,) = find_recipe(name).backbones.values()
    config = dataclasses.replace(config, facet=facet, norm=False, block=9)
    backbone = full_size(config)
    module = backbone.transformer.model.get_submodule(backbone.transformer.layer(9, facet))
    assert isinstance(module, torch.nn.Linear)
    assert module.weight.shape == (768, 768)
    patches = (config.size // backbone.transformer.patch) ** 2
    maps = backbone.read(torch.empty(1, 3, config.size, config.size, device="meta"))
    assert maps[facet].shape == (1, patches, 768)


def test_blocks_are_found_under_any_name():
    """By their number alone: transformers has renamed the list before."""

    class Renamed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.config = type("Config", (), {"num_hidden_layers": 3})()
            self.heads = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(2))
            self.inner = torch.nn.Module()
            self.inner.stages = torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(3))

    model = Renamed()
    transformer = Transformer(model, model, torch.nn.Identity(), patch=8, special=1)
    assert transformer.blocks == ("inner.stages.0", "inner.stages.1", "inner.stages.2")
    assert transformer.layer(2, "token") == "inner.stages.2"
    assert transformer.layer(0, "key") == "inner.stages.0.attention.k_proj"


# -- half precision ----------------------------------------------------------------------------


@pytest.mark.parametrize("facet", ["token", "key"])
@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_is_within_a_tenth(folders, photo, name, facet):
    changes = {"facet": facet, "norm": False}
    (maps,) = (
        config_of(name, folders[name], **changes)
        .build(Runtime(dtype=torch.bfloat16))
        .extract([load_image(photo)])
    )
    full = extract(config_of(name, folders[name], **changes), photo)
    assert 0 < (maps[facet].values - full).norm() / full.norm() < 0.1

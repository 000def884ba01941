from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sdcorr.backbones._positions import resize_positions
from sdcorr.backbones.dinov2 import Dinov2
from sdcorr.errors import BadRecipe
from sdcorr.preprocess import fit, load_image
from sdcorr.runtime import Runtime
from tests.papers import reference_transformers as reference
from tests.tiny import write_dinov2

SIZE = 168  # 12 x 12 patches


def extract(config: Dinov2, photo: np.ndarray) -> Tensor:
    (maps,) = config.build(Runtime()).extract([load_image(photo)])
    return maps["token"].values


def canvas_tensor(photo: np.ndarray) -> Tensor:
    """The canvas as the papers normalise it, written out channel by channel."""
    canvas = fit(load_image(photo), SIZE, "letterbox").pixels
    channels = []
    for index, (mean, std) in enumerate(((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))):
        channels.append((torch.tensor(canvas[:, :, index] / 255.0) - mean) / std)
    return torch.stack(channels)[None].float()


@pytest.mark.parametrize("block", [0, 5, 11])
def test_a_block_equals_hidden_states_before_the_norm(dinov2_folder, photo, block):
    from transformers import Dinov2Model

    model = Dinov2Model.from_pretrained(dinov2_folder).eval()
    with torch.no_grad():
        output = model(canvas_tensor(photo), output_hidden_states=True)
    expected = output.hidden_states[block + 1][0, 1:].T.reshape(24, 12, 12)
    config = Dinov2(str(dinov2_folder), size=SIZE, block=block, positions="transformers")
    torch.testing.assert_close(extract(config, photo), expected, rtol=1e-5, atol=1e-5)


def test_norm_gives_the_last_hidden_state(dinov2_folder, photo):
    from transformers import Dinov2Model

    model = Dinov2Model.from_pretrained(dinov2_folder).eval()
    with torch.no_grad():
        output = model(canvas_tensor(photo))
    expected = output.last_hidden_state[0, 1:].T.reshape(24, 12, 12)
    config = Dinov2(str(dinov2_folder), size=SIZE, norm=True, positions="transformers")
    torch.testing.assert_close(extract(config, photo), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", ["original", "transformers"])
def test_registers_are_dropped(registers_folder, photo, positions):
    """For register models both interpolations are the same, antialiased and without offset."""
    from transformers import Dinov2WithRegistersModel

    model = Dinov2WithRegistersModel.from_pretrained(registers_folder).eval()
    with torch.no_grad():
        output = model(canvas_tensor(photo), output_hidden_states=True)
    expected = output.hidden_states[12][0, 5:].T.reshape(24, 12, 12)
    config = Dinov2(str(registers_folder), size=SIZE, positions=positions)
    torch.testing.assert_close(extract(config, photo), expected, rtol=1e-5, atol=1e-5)


def cubic(distance: float, a: float = -0.75) -> float:
    """Keys' cubic convolution kernel with the constant that torch uses."""
    d = abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    if d < 2:
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return 0.0


def bicubic_weights(side: int, stored: int, scale: float) -> Tensor:
    """One axis of a bicubic resize with a given scale factor: ``(side, stored)``, float64."""
    weights = torch.zeros(side, stored, dtype=torch.float64)
    for out in range(side):
        place = (out + 0.5) / scale - 0.5
        first = math.floor(place)
        for tap in range(first - 1, first + 3):
            weights[out, min(max(tap, 0), stored - 1)] += cubic(place - tap)
    return weights


@pytest.mark.parametrize("side", [12, 60])
def test_original_positions_equal_a_written_out_bicubic(side):
    table = torch.randn(1, 1 + 37 * 37, 5, generator=torch.Generator().manual_seed(0))
    weights = bicubic_weights(side, 37, (side + 0.1) / 37)
    patches = table[0, 1:].double().reshape(37, 37, 5)
    expected = torch.einsum("yi,xj,ijc->yxc", weights, weights, patches).reshape(-1, 5)
    got = resize_positions(table, (side, side), "original")
    assert torch.equal(got[:, 0], table[:, 0])
    torch.testing.assert_close(got[0, 1:], expected.float(), rtol=1e-4, atol=1e-4)


def test_original_positions_differ_from_those_of_transformers(dinov2_folder, photo):
    original = extract(Dinov2(str(dinov2_folder), size=SIZE), photo)
    other = extract(Dinov2(str(dinov2_folder), size=SIZE, positions="transformers"), photo)
    difference = (original - other).norm() / other.norm()
    assert 1e-4 < difference < 0.5


def test_a_table_of_the_right_size_is_taken_as_it_is():
    table = torch.randn(1, 1 + 37 * 37, 5)
    assert resize_positions(table, (37, 37), "original") is table


def test_grid_of_a_letterboxed_photo(dinov2_folder, photo):
    (maps,) = Dinov2(str(dinov2_folder), size=SIZE).build(Runtime()).extract([load_image(photo)])
    grid = maps["token"].grid
    height = round(SIZE * 313 / 471)  # 112
    assert grid.shape == (12, 12)
    assert grid.stride == pytest.approx((14 * 471 / SIZE, 14 * 313 / height))
    assert grid.offset == pytest.approx((0, -((SIZE - height) // 2) * 313 / height))


def test_a_checkpoint_s_own_mean_and_std_are_used(dinov2_folder, tmp_path, photo):
    for file in Path(dinov2_folder).iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    plain = extract(Dinov2(str(dinov2_folder), size=SIZE), photo)
    assert not torch.allclose(extract(Dinov2(str(tmp_path), size=SIZE), photo), plain)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 100}, "size must be a multiple of the patch, 14 px, got 100"),
        ({"size": 0}, "size must be a multiple"),
        ({"block": 12}, r"block must be in 0\.\.11 .* got 12"),
        ({"block": -1}, "got -1"),
    ],
)
def test_fields_that_do_not_fit_the_model(dinov2_folder, changes, message):
    config = Dinov2(**{"model": str(dinov2_folder), "size": SIZE} | changes)
    with pytest.raises(BadRecipe, match=message):
        config.build(Runtime())


# -- checkpoints as they are published ---------------------------------------------------------

# of one block; the giant's MLP is another
OLD = "attention.attention"
BLOCK = (f"{OLD}.query", f"{OLD}.key", f"{OLD}.value", "attention.output.dense", "norm1", "norm2")
MLP, SWIGLU = ("mlp.fc1", "mlp.fc2"), ("mlp.weights_in", "mlp.weights_out")
SCALES = ("layer_scale1.lambda1", "layer_scale2.lambda1")
BESIDE = ("embeddings.patch_embeddings.projection", "layernorm")
TABLES = ("embeddings.cls_token", "embeddings.mask_token", "embeddings.position_embeddings")
# what transformers calls them in memory since version 5
LATER = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def test_the_tiny_checkpoints_have_the_names_of_the_hub(dinov2_folder, registers_folder, tmp_path):
    giant = write_dinov2(tmp_path, use_swiglu_ffn=True)
    for folder, mlp, more in (
        (dinov2_folder, MLP, []),
        (registers_folder, MLP, ["embeddings.register_tokens"]),
        (giant, SWIGLU, []),
    ):
        names = (*reference.with_bias(*BLOCK, *mlp), *SCALES)
        blocks = {f"encoder.layer.{k}.{name}" for k in range(12) for name in names}
        beside = reference.with_bias(*BESIDE)
        assert set(reference.Model(folder).weights) == {*TABLES, *more, *beside, *blocks}


@pytest.mark.parametrize("prefix", ["", "dinov2."])
def test_other_names_give_the_same_map(dinov2_folder, photo, tmp_path, prefix):
    """Those of later versions; and those of a classifier, all but the head under a prefix."""

    def rename(tensors: reference.Weights) -> reference.Weights:
        if prefix:
            named = {f"{prefix}{name}": value for name, value in tensors.items()}
            return named | {"classifier.weight": torch.ones(10, 48)}
        pattern = "|".join(map(re.escape, LATER))
        return {
            re.sub(pattern, lambda found: LATER[found[0]], name): value
            for name, value in tensors.items()
        }

    plain = reference.rewrite(dinov2_folder, tmp_path / "plain", reference.randomise)
    other = reference.rewrite(plain, tmp_path / "other", rename)
    assert (
        reference.load_file(other / "model.safetensors").keys()
        != reference.load_file(plain / "model.safetensors").keys()
    )
    fields = {"size": SIZE, "block": 7}
    got, expected = (extract(Dinov2(str(one), **fields), photo) for one in (other, plain))
    assert torch.equal(got, expected)


def test_a_checkpoint_without_mask_token_loads_alike(registers_folder, photo, tmp_path):
    bare = reference.rewrite(
        registers_folder,
        tmp_path / "bare",
        lambda tensors: {name: tensors[name] for name in tensors if "mask_token" not in name},
    )
    got, expected = (
        extract(Dinov2(str(one), size=SIZE), photo) for one in (bare, registers_folder)
    )
    assert torch.equal(got, expected)


# -- finer strides -----------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [7, 2])
def test_cells_of_a_finer_stride_lie_where_the_patches_do(dinov2_folder, other_photo, stride):
    """199 x 271 px on 84 x 84: 62 px wide and 11 from the left."""
    config = Dinov2(str(dinov2_folder), size=84, stride=stride)
    (maps,) = config.build(Runtime()).extract([load_image(other_photo)])
    grid = maps["token"].grid
    assert grid.shape == (1 + 70 // stride, 1 + 70 // stride)
    for cell, (x, y) in enumerate(grid.centers().tolist()):
        row, column = divmod(cell, grid.shape[1])
        assert x == pytest.approx((stride * column + 7 - 11) * 199 / 62 - 0.5)
        assert y == pytest.approx((stride * row + 7) * 271 / 84 - 0.5)


def test_a_patch_of_a_finer_stride_sees_its_own_pixels(dinov2_folder):
    """The values of block 0 move only where a patch overlaps the white square."""
    dark = np.zeros((84, 84, 3), np.uint8)
    bright = dark.copy()
    bright[28:42, 56:70] = 255  # from 28 down, 56 along
    for stride, cell in ((14, (2, 4)), (7, (4, 8)), (2, (14, 28))):
        config = Dinov2(str(dinov2_folder), size=84, stride=stride, facet="value", block=0)
        backbone = config.build(Runtime())
        one, other = backbone.extract([load_image(dark), load_image(bright)])
        away = (one["value"].values - other["value"].values).square().sum(dim=0)
        touched = (away > 1e-9).nonzero()
        reach = 13 // stride
        assert touched.min(dim=0).values.tolist() == [place - reach for place in cell]
        highest = [min(place + reach, away.shape[0] - 1) for place in cell]
        assert touched.max(dim=0).values.tolist() == highest

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sdcorr.backbones.dinov3 import Dinov3, rotations
from sdcorr.preprocess import fit, load_image
from sdcorr.runtime import Runtime
from tests.papers import reference_transformers as reference
from tests.tiny import dinov3_parts, write

SIZE = 96  # 6 x 6 patches
# as in facebook/dinov3-vitb16-pretrain-lvd1689m
BLOCK = [
    *reference.with_bias("norm1", "norm2", "mlp.up_proj", "mlp.down_proj", "attention.q_proj"),
    *reference.with_bias("attention.v_proj", "attention.o_proj"),
    "attention.k_proj.weight",  # a bias of keys would be without effect
    "layer_scale1.lambda1",
    "layer_scale2.lambda1",
]
BESIDE = reference.with_bias("embeddings.patch_embeddings", "norm")
TABLES = ("embeddings.cls_token", "embeddings.mask_token", "embeddings.register_tokens")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Twelve blocks, with weights of which each counts."""
    root = tmp_path_factory.mktemp("dinov3")
    return reference.rewrite(
        write(root / "plain", dinov3_parts()), root / "own", reference.randomise
    )


def extract(
    folder: Path, photo: np.ndarray, dtype: torch.dtype = torch.float32, **fields
) -> Tensor:
    config = Dinov3(str(folder), **{"size": SIZE} | fields)
    (maps,) = config.build(Runtime(dtype=dtype)).extract([load_image(photo)])
    return maps[config.facet].values


def canvas_tensor(photo: np.ndarray) -> Tensor:
    """The canvas as the papers normalise it."""
    return reference.normalise(reference.letterbox(photo, SIZE)).float()[None]


# -- against transformers ----------------------------------------------------------------------


def run(folder: Path, photo: np.ndarray) -> tuple[Tensor, ...]:
    """Output of each block, and the last one's after the final norm."""
    from transformers import DINOv3ViTModel

    model = DINOv3ViTModel.from_pretrained(folder).eval()
    with torch.no_grad():
        output = model(canvas_tensor(photo), output_hidden_states=True)
    return (*output.hidden_states[1:12], output.last_hidden_state)


@pytest.mark.parametrize("stride", [None, 16])
def test_tokens_are_those_of_transformers(folder, photo, stride):
    """CLS and four registers dropped; a stride of one patch, asked for, changes nothing."""
    hidden = run(folder, photo)
    last = hidden[-1][0, 5:].T.reshape(32, 6, 6)
    got = extract(folder, photo, stride=stride)
    torch.testing.assert_close(got, last, rtol=1e-5, atol=1e-5)
    inner = hidden[4][0, 5:].T.reshape(32, 6, 6)
    got = extract(folder, photo, stride=stride, block=4, norm=False)
    torch.testing.assert_close(got, inner, rtol=1e-5, atol=1e-5)


def test_norm_is_on_by_default_and_can_be_left_out(folder, photo):
    model = reference.Model(folder)
    rows = model.run(canvas_tensor(photo)[0].double()).token[11]
    for norm, expected in ((True, model.norm(rows)), (False, rows)):
        got = extract(folder, photo, **({} if norm else {"norm": False})).double()
        assert (got - expected[5:].T.reshape(32, 6, 6)).norm() / expected[5:].norm() < 1e-4


# -- rotary positions --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(96, 96), (48, 160), (16, 64), (768, 768)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotations_at_a_stride_of_one_patch_are_those_of_transformers(size, dtype):
    rope = dinov3_parts(num_hidden_layers=1)[""].eval().rope_embeddings
    canvas = torch.empty(1, 3, *size, dtype=dtype)
    got = rotations(rope.inv_freq, patch=16, stride=16)(canvas)
    for one, expected in zip(got, rope(canvas), strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one, expected, rtol=0, atol=1e-5 if dtype.itemsize > 2 else 1e-2)


@pytest.mark.parametrize("stride", [16, 8, 4, 2, 1])
@pytest.mark.parametrize("size", [(32, 32), (48, 32), (32, 57)], ids=str)
def test_rotations_of_a_patch_are_those_of_its_centre(size, stride):
    """By loops over patches and channels: -1 to 1 over the canvas, first y, then x, all twice."""
    theta, channels, (height, width) = 100.0, 16, size
    frequencies = torch.tensor([theta ** (-2 * k / (channels // 2)) for k in range(channels // 4)])
    cosine, sine = rotations(frequencies, patch=16, stride=stride)(torch.empty(1, 3, height, width))
    patch = 0
    for top in range(0, height - 15, stride):
        for left in range(0, width - 15, stride):
            place = (2 * (top + 8) / height - 1, 2 * (left + 8) / width - 1)
            turns = reference.angles(place, channels, theta)
            expected = torch.tensor(turns)
            torch.testing.assert_close(cosine[patch], expected.cos(), rtol=0, atol=1e-5)
            torch.testing.assert_close(sine[patch], expected.sin(), rtol=0, atol=1e-5)
            patch += 1
    assert cosine.shape == sine.shape == (patch, channels)


def test_angles_by_hand():
    """One patch on a canvas of one patch has no turn; at the edge it is 2 pi / period."""
    assert reference.angles((0, 0), 16, 100.0) == [0.0] * 16
    turns = reference.angles((1, -0.5), 16, 100.0)
    periods = [1, math.sqrt(10), 10, math.sqrt(1000)]
    y, x = [2 * math.pi / one for one in periods], [-math.pi / one for one in periods]
    assert turns == pytest.approx([*y, *x, *y, *x])
    cosine, sine = rotations(torch.tensor([1.0, 0.1]), 16, 16)(torch.empty(1, 3, 16, 16))
    assert cosine.tolist() == [[1.0] * 8]
    assert sine.tolist() == [[0.0] * 8]


def test_a_finer_stride_holds_the_rotations_of_the_coarser():
    """Of 96 x 64 pixels: every second patch at stride 8 is one at stride 16."""
    frequencies = torch.tensor([1.0, 0.3, 0.1])
    canvas = torch.empty(1, 3, 96, 64)
    for fine, coarse in zip(
        rotations(frequencies, 16, 8)(canvas), rotations(frequencies, 16, 16)(canvas), strict=True
    ):
        every_other = fine.reshape(11, 7, 12)[::2, ::2]
        torch.testing.assert_close(every_other.reshape(-1, 12), coarse, rtol=0, atol=1e-5)


def test_rotations_move_the_tokens_but_not_the_first_block_s_keys(folder, photo):
    """Keys are read before their rotation; theirs is the only position that the model has."""
    straight = reference.rewrite(folder, folder.parent / "straight", rope_theta=1.0)
    for facet in ("query", "key", "value"):
        first = [
            extract(one, photo, facet=facet, norm=False, block=0) for one in (folder, straight)
        ]
        assert torch.equal(*first)
        later = [
            extract(one, photo, facet=facet, norm=False, block=1) for one in (folder, straight)
        ]
        assert (later[0] - later[1]).norm() / later[0].norm() > 1e-2


@pytest.mark.parametrize("stride", [None, 16])
def test_frequencies_stay_in_full_precision(folder, stride):
    """They are no weights: bfloat16 would turn the fastest by a degree too many."""
    backbone = Dinov3(str(folder), size=SIZE, stride=stride).build(Runtime(dtype=torch.bfloat16))
    rope = backbone.transformer.model.rope_embeddings
    expected = [100.0 ** (-2 * k / 8) for k in range(4)]
    assert rope.inv_freq.dtype == torch.float32
    assert rope.inv_freq.tolist() == pytest.approx(expected, rel=1e-6)
    cosine, _ = rope(torch.zeros(1, 3, SIZE, SIZE))
    turns = [
        reference.angles((2 * (row + 0.5) / 6 - 1, 2 * (column + 0.5) / 6 - 1), 16, 100.0)
        for row in range(6)
        for column in range(6)
    ]
    torch.testing.assert_close(cosine, torch.tensor(turns).cos(), rtol=0, atol=1e-5)


def test_bfloat16_at_a_finer_stride_is_close(folder, photo):
    full = extract(folder, photo, stride=8)
    half = extract(folder, photo, torch.bfloat16, stride=8)
    assert 0 < (half - full).norm() / full.norm() < 0.1


# -- grids -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["letterbox", "stretch"])
@pytest.mark.parametrize("stride", [None, 8])
def test_cells_lie_where_the_patches_do(folder, other_photo, how, stride):
    """199 x 271 px: on a letterbox, 96 px high, 70 wide and 13 from the left."""
    config = Dinov3(str(folder), size=SIZE, fit=how, stride=stride)
    (maps,) = config.build(Runtime()).extract([load_image(other_photo)])
    grid, step = maps["token"].grid, stride or 16
    wide, left = (70, 13) if how == "letterbox" else (96, 0)
    assert grid.shape == ((11, 11) if stride else (6, 6))
    for cell, (x, y) in enumerate(grid.centers().tolist()):
        row, column = divmod(cell, grid.shape[1])
        assert x == pytest.approx((step * column + 8 - left) * 199 / wide - 0.5)
        assert y == pytest.approx((step * row + 8) * 271 / 96 - 0.5)


def test_a_patch_sees_its_own_pixels(folder):
    """One white square at a patch's place on the canvas: the embedding of that patch moves most."""
    dark = np.zeros((96, 96, 3), np.uint8)
    bright = dark.copy()
    bright[32:48, 64:80] = 255  # from 32 down, 64 along
    assert np.array_equal(fit(load_image(bright), SIZE, "letterbox").pixels, bright)
    fields = {"facet": "value", "block": 0, "norm": False}
    for stride, cell in ((16, (2, 4)), (8, (4, 8)), (4, (8, 16))):
        moved = extract(folder, bright, stride=stride, **fields) - extract(
            folder, dark, stride=stride, **fields
        )
        away = moved.square().sum(dim=0)
        touched = (away > 1e-6).nonzero()
        reach = 16 // stride - 1  # patches that overlap the square
        assert touched.min(dim=0).values.tolist() == [one - reach for one in cell]
        assert touched.max(dim=0).values.tolist() == [one + reach for one in cell]


# -- checkpoints -------------------------------------------------------------------------------


def test_the_tiny_checkpoint_has_the_names_of_the_hub(folder):
    stored = set(reference.Model(folder).weights)
    blocks = {f"layer.{k}.{name}" for k in range(12) for name in BLOCK}
    assert stored == {*TABLES, *BESIDE, *blocks}


def test_names_of_a_later_transformers_load_alike(folder, photo, tmp_path):
    later = reference.rewrite(
        folder,
        tmp_path / "later",
        lambda tensors: {re.sub(r"^layer\.", "model.layer.", one): tensors[one] for one in tensors},
    )
    assert "model.layer.11.norm1.weight" in reference.load_file(later / "model.safetensors")
    assert torch.equal(extract(later, photo), extract(folder, photo))


def test_a_checkpoint_without_mask_token_loads_alike(folder, photo, tmp_path):
    bare = reference.rewrite(
        folder,
        tmp_path / "bare",
        lambda tensors: {name: tensors[name] for name in tensors if "mask_token" not in name},
    )
    assert torch.equal(extract(bare, photo), extract(folder, photo))


def test_a_huge_one_with_a_gated_mlp(photo, tmp_path):
    """As of facebook/dinov3-vith16plus: SwiGLU, three matrices."""
    parts = dinov3_parts(num_hidden_layers=3, use_gated_mlp=True, hidden_act="silu")
    folder = write(tmp_path / "plain", parts)
    folder = reference.rewrite(folder, tmp_path / "huge", reference.randomise)
    model = reference.Model(folder)
    assert "layer.2.mlp.gate_proj.weight" in model.weights
    expected = model.norm(model.run(canvas_tensor(photo)[0].double()).token[2])[5:]
    got = extract(folder, photo, block=2).flatten(1).T.double()
    assert (got - expected).norm() / expected.norm() < 1e-4


@pytest.mark.parametrize("registers", [0, 1, 4])
def test_registers_are_counted_and_dropped(photo, tmp_path, registers):
    folder = write(
        tmp_path / "plain", dinov3_parts(num_hidden_layers=2, num_register_tokens=registers)
    )
    folder = reference.rewrite(folder, tmp_path / "own", reference.randomise)
    stages = reference.Model(folder).run(canvas_tensor(photo)[0].double())
    assert stages.special == 1 + registers
    got = extract(folder, photo, block=1, norm=False)
    expected = stages.cells(stages.token[1])
    assert (got.double() - expected).norm() / expected.norm() < 1e-4

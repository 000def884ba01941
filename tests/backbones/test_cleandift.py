from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdcorr.backbones.cleandift import CleanDift, CleanDiftBackbone
from sdcorr.backbones.stable_diffusion import StableDiffusion
from sdcorr.errors import BadCheckpoint, BadRecipe, UnknownName
from sdcorr.preprocess import load_image
from sdcorr.runtime import Runtime
from tests.papers import reference_diffusion as reference
from tests.papers.reference_diffusion import PAPERS, SD_15, SD_21

FILES = {SD_21: "cleandift_sd21_unet.safetensors", SD_15: "cleandift_sd15_unet.safetensors"}
LAYER = "up_blocks.1"
KEY = "up_blocks.1.resnets.0.conv1.weight"


@pytest.fixture(scope="module")
def tuned(checkpoints) -> Path:
    """The folder of the tuned UNets."""
    return checkpoints["CompVis/cleandift"]


@pytest.fixture(scope="module")
def config(checkpoints, tuned) -> CleanDift:
    return CleanDift(str(checkpoints[SD_21]), size=128, unet=str(tuned))


@pytest.fixture(scope="module")
def backbone(config) -> CleanDiftBackbone:
    return config.build(Runtime())


def values_of(config: CleanDift | StableDiffusion, photo, dtype=torch.float32):
    (maps,) = config.build(Runtime(dtype=dtype)).extract([load_image(photo)])
    return maps[config.layers[0]].values


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def written(folder: Path, tensors: dict[str, torch.Tensor]) -> str:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / FILES[SD_21])
    return str(folder)


# The tuned UNet


def test_every_weight_is_the_tuned_one(checkpoints, tuned, backbone):
    stock = load_file(checkpoints[SD_21] / "unet" / "diffusion_pytorch_model.safetensors")
    loaded = backbone.unet.state_dict()
    weights = load_file(tuned / FILES[SD_21])
    assert loaded.keys() == weights.keys() == stock.keys()
    for name, value in weights.items():
        assert value.dtype == torch.float16  # as published
        assert loaded[name].dtype == torch.float32
        if not loaded[name].is_meta:  # never read
            assert torch.equal(loaded[name], value.float())
            assert not torch.equal(loaded[name], stock[name])


def test_the_model_is_ready_to_be_read(backbone):
    assert not backbone.unet.training
    assert not any(one.requires_grad for one in backbone.unet.parameters())
    unread = {name for name, one in backbone.unet.named_parameters() if one.is_meta}
    after = ("up_blocks.2.", "up_blocks.3.", "conv_norm_out.", "conv_out.")  # after up_blocks.1
    assert unread == {
        name for name, _ in backbone.unet.named_parameters() if name.startswith(after)
    }


@pytest.mark.parametrize("step", [261, 261.5, 0, 999.75])
def test_maps_at_whole_and_fractional_steps(checkpoints, tuned, config, photo, step):
    paper = replace(reference.in_small(PAPERS["cleandift-sd21"]), step=step)
    models = reference.load(checkpoints[SD_21], tuned / FILES[SD_21])
    expected = reference.stages(models, paper, photo, "").maps[LAYER]
    assert error(values_of(replace(config, step=step), photo), expected) < 1e-4


def test_half_a_step_is_not_a_whole_one(config, photo):
    whole, half, next_one = (values_of(replace(config, step=s), photo) for s in (261, 261.5, 262))
    assert torch.equal(values_of(replace(config, step=261.0), photo), whole)
    assert error(half, whole) > 1e-4
    assert error(half, next_one) > 1e-4


def test_no_noise_is_added(checkpoints, tuned, backbone, photo):
    """The UNet reads the latent itself; a noised one at step 261 has 0.83 of the signal."""
    seen = []
    watch = backbone.unet.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    backbone.extract([load_image(photo)])
    watch.remove()
    paper = reference.in_small(PAPERS["cleandift-sd21"])
    models = reference.load(checkpoints[SD_21], tuned / FILES[SD_21])
    with torch.no_grad():
        windows = reference.cut(reference.place(photo, 128, letterbox=False), paper)
        ((expected,),) = reference.latents_of(models.vae, paper, windows)
    (latents,) = seen
    assert error(latents, expected) < 1e-4


def test_the_seed_is_of_the_sample_alone(config, photo):
    sampled = [values_of(replace(config, seed=seed), photo) for seed in (42, 43)]
    assert error(*sampled) > 1e-3
    mean = replace(config, latent="mean")
    assert torch.equal(values_of(replace(mean, seed=43), photo), values_of(mean, photo))


def test_the_stock_unet_gives_other_maps(checkpoints, config, photo):
    stock = StableDiffusion(
        str(checkpoints[SD_21]), size=128, window=None, layers=(LAYER,), step=0
    )  # fmt: skip
    fitted = replace(config, fit="letterbox", resample="lanczos", latent="mean", step=0)
    assert error(values_of(fitted, photo), values_of(stock, photo)) > 0.01


# What is loaded


def test_neither_scheduler_nor_stock_unet_is_needed(checkpoints, config, photo, tmp_path):
    folder = shutil.copytree(checkpoints[SD_21], tmp_path / "stock")
    shutil.rmtree(folder / "scheduler")
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    alone = values_of(replace(config, model=str(folder)), photo)
    assert torch.equal(alone, values_of(config, photo))


def test_both_places_are_told(config, backbone, tuned):
    stock, over = config.weights()
    assert (stock.field, over.field) == ("model", "unet")
    assert over.required == (FILES[SD_21],)
    assert set(backbone.revisions) == {config.model, str(tuned)}


def test_each_stable_diffusion_has_its_file(checkpoints, tuned, photo):
    config = CleanDift(str(checkpoints[SD_15]), size=128, unet=str(tuned), unet_file=FILES[SD_15])
    assert values_of(config, photo).shape == (64, 8, 8)
    crossed = replace(config, unet_file=FILES[SD_21])  # linear projections have other shapes
    with pytest.raises(BadCheckpoint, match="another shape"):
        crossed.build(Runtime())


# A file that is not what it should be


@pytest.fixture(scope="module")
def weights(tuned) -> dict[str, torch.Tensor]:
    return load_file(tuned / FILES[SD_21])


def test_a_weight_is_missing(config, weights, tmp_path):
    fewer = {name: value for name, value in weights.items() if name != KEY}
    with pytest.raises(BadCheckpoint, match=rf"1 weights are missing, first '{KEY}'"):
        replace(config, unet=written(tmp_path, fewer)).build(Runtime())


def test_a_weight_is_left_over(config, weights, tmp_path):
    more = weights | {"timestep": torch.tensor(261.0)}  # as in the file of the whole model
    with pytest.raises(BadCheckpoint, match="has no place for, first 'timestep'"):
        replace(config, unet=written(tmp_path, more)).build(Runtime())


def test_a_weight_of_another_shape(config, weights, tmp_path):
    cut = weights | {KEY: weights[KEY][:, :-1].contiguous()}
    with pytest.raises(BadCheckpoint, match=f"{KEY} has another shape"):
        replace(config, unet=written(tmp_path, cut)).build(Runtime())


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_file_cut_short(config, tuned, tmp_path, share):
    data = (tuned / FILES[SD_21]).read_bytes()
    (tmp_path / FILES[SD_21]).write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadCheckpoint, match="is no readable safetensors file"):
        replace(config, unet=str(tmp_path)).build(Runtime())


def test_a_file_of_something_else(config, tmp_path):
    (tmp_path / FILES[SD_21]).write_text("<html>Not Found</html>")
    with pytest.raises(BadCheckpoint, match="is no readable safetensors file"):
        replace(config, unet=str(tmp_path)).build(Runtime())


@pytest.mark.parametrize("empty", [True, False], ids=["empty", "none"])
def test_a_file_that_is_not_there(config, tmp_path, empty):
    if empty:
        (tmp_path / FILES[SD_21]).touch()
    with pytest.raises(BadCheckpoint, match=FILES[SD_21]):
        replace(config, unet=str(tmp_path)).build(Runtime())


def test_a_weight_that_is_not_finite_is_told(config, weights, photo, tmp_path):
    from sdcorr.errors import NotFinite

    broken = weights | {KEY: torch.full_like(weights[KEY], torch.nan)}
    with pytest.raises(NotFinite, match=LAYER):
        values_of(replace(config, unet=written(tmp_path, broken)), photo)


# Fields


@pytest.mark.parametrize("step", [-1, 1000, float("nan")])
def test_a_step_out_of_range(config, step):
    with pytest.raises(BadRecipe, match="step must be"):
        replace(config, step=step)


@pytest.mark.parametrize(
    "name",
    ["../tuned.safetensors", "/tmp/tuned.safetensors", "*", "", ".", "a.ckpt", "a/b.safetensors"],
)
def test_the_tuned_file_stays_in_its_folder(config, name):
    """Else its revision would not be that of the weights, and any path could be opened."""
    with pytest.raises(BadRecipe, match="unet_file must be a file's name"):
        replace(config, unet_file=name)


def test_an_unknown_layer(config):
    with pytest.raises(UnknownName, match="up_blocks"):
        replace(config, layers=("up_blocks.7",)).build(Runtime())


def test_in_half_precision(config, photo):
    """Computed in bfloat16, kept as float32, and off by its rounding."""
    half = values_of(config, photo, torch.bfloat16)
    assert half.dtype == torch.float32
    assert 0 < error(half, values_of(config, photo)) < 0.1

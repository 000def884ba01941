from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdcorr.backbones._taps import read_layers
from sdcorr.backbones.stable_diffusion import StableDiffusion
from sdcorr.backbones.stable_diffusion_xl import StableDiffusionXL, StableDiffusionXLBackbone
from sdcorr.errors import BadCheckpoint, BadRecipe, NotFinite
from sdcorr.preprocess import load_image
from sdcorr.runtime import Runtime
from tests.papers import reference_diffusion as reference
from tests.papers.reference_diffusion import PAPERS, SD_15, SD_XL
from tests.tiny import WIDTH, stable_diffusion_xl_parts, write

LAYER = "up_blocks.0"
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def folder(checkpoints) -> Path:
    return checkpoints[SD_XL]


@pytest.fixture(scope="module")
def config(folder) -> StableDiffusionXL:
    return StableDiffusionXL(str(folder), size=128)


@pytest.fixture(scope="module")
def backbone(config) -> StableDiffusionXLBackbone:
    return config.build(Runtime())


def copy_of(folder: Path, place: Path, **vae) -> Path:
    """A copy whose VAE's config has other fields; None takes one away."""
    copy = shutil.copytree(folder, place / "xl")
    path = copy / "vae" / "config.json"
    fields = json.loads(path.read_text()) | vae
    path.write_text(json.dumps({key: one for key, one in fields.items() if one is not None}))
    return copy


def values_of(config: StableDiffusionXL, photo, dtype=torch.float32, category=None):
    (maps,) = config.build(Runtime(dtype=dtype)).extract([load_image(photo, category)])
    return maps[config.layers[0]].values


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got.double() - expected.double()).norm() / expected.double().norm())


# What the UNet is told


@pytest.mark.parametrize("category", ["cat", None])
def test_both_texts_side_by_side_and_the_pooled_one(folder, backbone, category):
    prompt = backbone.config.prompt_for(category)
    condition = backbone.condition(prompt)
    paper = reference.in_small(PAPERS["sdxl"])
    with torch.no_grad():
        text, added = reference.conditions(reference.load(folder), paper, prompt)
    assert text.shape == (1, 77, WIDTH + 48)
    assert error(condition["encoder_hidden_states"], text) < 1e-4
    assert condition["added_cond_kwargs"].keys() == added.keys()
    assert error(condition["added_cond_kwargs"]["text_embeds"], added["text_embeds"]) < 1e-4


def test_the_last_layer_of_neither_encoder_is_used(folder, backbone):
    """Published: the last but one hidden state, without the final LayerNorm."""
    text = backbone.condition("a photo of cat")["encoder_hidden_states"]
    models = reference.load(folder)
    with torch.no_grad():
        read = [reference.read_text(*one, "a photo of cat") for one in models.texts]
    last, before = (torch.cat([one[index] for one in read], dim=-1) for index in (0, 1))
    assert error(text, before) < 1e-4
    for part in (text[..., :WIDTH], last[..., :WIDTH]), (text[..., WIDTH:], last[..., WIDTH:]):
        assert error(*part) > 0.01


@pytest.mark.parametrize(
    ("size", "window", "side"), [(128, None, 128), (192, None, 192), (192, 128, 128)]
)
def test_sizes_are_those_of_one_pass_not_cropped(config, size, window, side):
    backbone = replace(config, size=size, window=window).build(Runtime())
    sizes = backbone.condition("")["added_cond_kwargs"]["time_ids"]
    assert sizes.tolist() == [[side, side, 0, 0, side, side]]


def test_sizes_matter_and_so_does_the_pooled_text(folder, photo):
    """Else the tests above would prove nothing about the maps."""
    models, paper = reference.load(folder), reference.in_small(PAPERS["sdxl"])
    with torch.no_grad():
        text, added = reference.conditions(models, paper, "")
        latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)).double()
        plain = reference.run_unet(models.unet, latents, 50, text, added, {})[LAYER]
        for key in added:
            changed = added | {key: added[key] * 1.5}
            other = reference.run_unet(models.unet, latents, 50, text, changed, {})[LAYER]
            assert error(other, plain) > 1e-3, key


def test_windows_share_noise_and_conditions(folder, config, photo):
    """Not published; the same computation as Stable Diffusion's windows."""
    paper = replace(reference.in_small(PAPERS["sdxl"]), size=192, windows=((0, 128), (64, 192)))
    stage = reference.stages(reference.load(folder), paper, photo, "a photo of cat")
    cut = replace(config, size=192, window=128)
    assert error(values_of(cut, photo, category="cat"), stage.maps[LAYER]) < 1e-4


def test_each_draw_of_a_sampled_latent_draws_the_posterior_first(folder, config, photo):
    paper = replace(reference.in_small(PAPERS["sdxl"]), sampled=True, draws=2)
    stage = reference.stages(reference.load(folder), paper, photo, "")
    sampled = replace(config, latent="sample", ensemble=2)
    assert error(values_of(sampled, photo), stage.maps[LAYER]) < 1e-4
    assert error(values_of(config, photo), stage.maps[LAYER]) > 1e-3


def test_latents_are_scaled_by_the_vaes_own_factor(folder, config, photo, tmp_path):
    """0.13025, not the 0.18215 of Stable Diffusion 1.5."""
    assert json.loads((folder / "vae" / "config.json").read_text())["scaling_factor"] == 0.13025
    other = copy_of(folder, tmp_path, scaling_factor=0.18215)
    changed = values_of(replace(config, model=str(other)), photo)
    assert error(changed, values_of(config, photo)) > 1e-3


# The pass


@pytest.mark.parametrize("latent", [(120, 120), (60, 34), (30, 22), (15, 17)], ids=str)
def test_a_pass_over_a_latent_of_any_size_ends_rightly(folder, backbone, latent):
    """960 px in one pass is 120, 30 x 4; other sides need the size of the next skip."""
    models = reference.load(folder)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, *latent, generator=generator)
    condition = backbone.condition("")
    layers = ("up_blocks.0.attentions.1", LAYER)
    found = read_layers(backbone.unet, layers, lambda: backbone.unet(latents, 50, **condition))
    with torch.no_grad():
        text, added = reference.conditions(models, replace(PAPERS["sdxl"], windows=((0, 128),)), "")
        expected = reference.run_unet(models.unet, latents.double(), 50, text, added, {})
    for layer in layers:
        assert found[layer].shape == expected[layer].shape
        assert error(found[layer], expected[layer]) < 1e-4
    assert found[LAYER].shape[2:] == tuple((side + 1) // 2 for side in latent)


# Precision of the VAE


def seen_by_the_vae(backbone: StableDiffusionXLBackbone, photo) -> torch.dtype:
    seen = []
    watch = backbone.vae.encoder.register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].dtype)
    )
    backbone.extract([load_image(photo)])
    watch.remove()
    (dtype,) = set(seen)
    return dtype


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("upcast", [True, False, None])
def test_the_vae_stays_in_float32_where_its_config_says_so(
    folder, config, photo, tmp_path, dtype, upcast
):
    """Where it says nothing, too: that is diffusers' default."""
    copy = copy_of(folder, tmp_path, force_upcast=upcast)
    backbone = replace(config, model=str(copy)).build(Runtime(dtype=dtype))
    expected = dtype if upcast is False else torch.float32
    assert {one.dtype for one in backbone.vae.parameters()} == {expected}
    assert seen_by_the_vae(backbone, photo) == expected
    assert {one.dtype for one in backbone.unet.parameters()} == {dtype}
    condition = backbone.condition("")
    assert condition["encoder_hidden_states"].dtype == dtype
    assert {one.dtype for one in condition["added_cond_kwargs"].values()} == {dtype}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_is_near_float32(config, photo, dtype):
    half, full = values_of(config, photo, dtype), values_of(config, photo)
    assert half.dtype == torch.float32
    assert 0 < error(half, full) < 0.1


@pytest.fixture(scope="module")
def loud(folder, tmp_path_factory) -> Path:
    """A VAE whose first convolution exceeds what float16 can hold."""
    copy = shutil.copytree(folder, tmp_path_factory.mktemp("loud") / "xl")
    path = copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["encoder.conv_in.weight"] *= 1e5 / weights["encoder.conv_in.weight"].abs().max()
    weights["encoder.conv_in.weight"].clamp_(-60000, 60000)  # itself it can
    save_file(weights, path, metadata={"format": "pt"})
    return copy


def test_a_vae_that_overflows_in_half_is_why(loud, config, photo, tmp_path):
    loud_one = replace(config, model=str(loud))
    assert torch.isfinite(values_of(loud_one, photo, torch.float16)).all()
    in_half = replace(config, model=str(copy_of(loud, tmp_path, force_upcast=False)))
    with pytest.raises(NotFinite, match=LAYER):
        values_of(in_half, photo, torch.float16)


# Parts that do not fit


def built(folder: Path, **changes) -> StableDiffusionXLBackbone:
    write(folder, stable_diffusion_xl_parts(**changes))
    return StableDiffusionXL(str(folder), size=128).build(Runtime())


def test_a_pooled_text_of_another_width(tmp_path):
    with pytest.raises(BadCheckpoint, match=r"of width 40, .* gives 24 \(projection_dim\)"):
        built(tmp_path, second={"projection_dim": 24})


def test_a_text_of_another_width(tmp_path):
    words = rf"of width 64 \(cross_attention_dim\), .* gives {WIDTH + 48} \(hidden_size\)"
    with pytest.raises(BadCheckpoint, match=words):
        built(tmp_path, cross_attention_dim=64)


def test_a_config_that_names_no_width(folder, config, tmp_path):
    copy = copy_of(folder, tmp_path)
    path = copy / "text_encoder_2" / "config.json"
    fields = json.loads(path.read_text())
    del fields["projection_dim"]
    path.write_text(json.dumps(fields))
    with pytest.raises(BadCheckpoint, match="projection_dim"):
        replace(config, model=str(copy)).build(Runtime())


@pytest.mark.parametrize(
    "name",
    [
        "text_encoder_2/model.safetensors",
        "tokenizer_2/tokenizer_config.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_a_file_that_is_missing_is_named(folder, config, tmp_path, name):
    copy = copy_of(folder, tmp_path)
    (copy / name).unlink()
    with pytest.raises(BadCheckpoint, match=name):
        replace(config, model=str(copy)).build(Runtime())


def test_another_kind_of_stable_diffusion_is_refused(checkpoints, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "xl")
    shutil.copytree(checkpoints[SD_15] / "unet", copy / "unet", dirs_exist_ok=True)
    with pytest.raises(BadCheckpoint, match="no text-to-image UNet of Stable Diffusion XL"):
        StableDiffusionXL(str(copy), size=128).build(Runtime())
    with pytest.raises(BadCheckpoint, match=r"no text-to-image UNet of Stable Diffusion 1.x"):
        StableDiffusion(str(folder), size=128, window=None, layers=(LAYER,)).build(Runtime())


def test_a_step_past_the_schedule(config):
    with pytest.raises(BadRecipe, match=r"step must be in 0\.\.1000 \(exclusive\), got 1000"):
        replace(config, step=1000).build(Runtime())


def test_a_prompt_too_long_for_the_encoders(config, photo):
    long = replace(config, prompt_without_category="photo " * 100)
    with pytest.raises(BadRecipe, match="at most 77 fit"):
        values_of(long, photo)


def test_a_prompt_is_encoded_once_by_each_encoder(config, photo, monkeypatch):
    from sdcorr.backbones import _text

    loads = []
    load = _text.load_part
    monkeypatch.setattr(_text, "load_part", lambda *args: loads.append(args[2]) or load(*args))
    backbone = config.build(Runtime())
    for category in ("cat", "dog", "cat"):
        backbone.extract([load_image(photo, category)])
    assert loads == ["text_encoder", "text_encoder_2"] * 2

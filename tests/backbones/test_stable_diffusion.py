from __future__ import annotations

import gc
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sdcorr.backbones._taps import read_layers
from sdcorr.backbones.stable_diffusion import StableDiffusion, StableDiffusionBackbone
from sdcorr.errors import BadCheckpoint, BadRecipe, UnknownName
from sdcorr.preprocess import fit, load_image
from sdcorr.runtime import Runtime

LAYERS = ("up_blocks.0.resnets.1", "up_blocks.1.attentions.1", "up_blocks.2.attentions.1")


@pytest.fixture(scope="module")
def config(sd_folder) -> StableDiffusion:
    """Two windows a side, as in the recipe, in small."""
    return StableDiffusion(str(sd_folder), size=192, window=128, overlap=64)


@pytest.fixture(scope="module")
def backbone(config) -> StableDiffusionBackbone:
    return config.build(Runtime())


def extract(config: StableDiffusion, photo: np.ndarray, category: str | None = None):
    return config.build(Runtime()).extract([load_image(photo, category)])[0]


def load_whole(folder):
    """All parts, loaded by diffusers and transformers themselves."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTokenizer

    parts = (
        UNet2DConditionModel.from_pretrained(folder, subfolder="unet"),
        AutoencoderKL.from_pretrained(folder, subfolder="vae"),
        CLIPTextModel.from_pretrained(folder, subfolder="text_encoder"),
    )
    tokenizer = CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    return *(part.eval() for part in parts), tokenizer


def hooked_full_pass(unet, latents: Tensor, step: int, text: Tensor) -> dict[str, Tensor]:
    """Plain hooks on a forward pass that runs to its end."""
    outputs: dict[str, Tensor] = {}
    handles = []
    for name in LAYERS:

        def keep(_module, _inputs, output, name=name):
            outputs[name] = output[0] if isinstance(output, tuple) else output

        handles.append(unet.get_submodule(name).register_forward_hook(keep))
    with torch.no_grad():
        unet(latents, step, encoder_hidden_states=text)
    for handle in handles:
        handle.remove()
    return outputs


def betas() -> Tensor:
    """The "scaled_linear" betas 0.00085..0.012, in float64."""
    return torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2


@pytest.mark.parametrize("latent", [(64, 64), (60, 60), (60, 33)])
def test_the_ended_pass_equals_the_whole_one(sd_folder, latent):
    """Also where the latent is no multiple of 8, which cutting blocks off would get wrong."""
    unet, *_ = load_whole(sd_folder)
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, *latent, generator=generator)
    text = torch.randn(1, 77, 32, generator=generator)
    expected = hooked_full_pass(unet, latents, 100, text)
    with torch.no_grad():
        got = read_layers(unet, LAYERS, lambda: unet(latents, 100, encoder_hidden_states=text))
    for name in LAYERS:
        assert got[name].shape == expected[name].shape
        assert (got[name] - expected[name]).norm() <= 1e-5 * expected[name].norm()


def slow_maps(folder, config: StableDiffusion, photo: np.ndarray, prompt: str) -> dict[str, Tensor]:
    """The published computation, window by window and cell by cell, whole UNet, no batches."""
    unet, vae, text_encoder, tokenizer = load_whole(folder)
    ids = tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        text = text_encoder(ids).last_hidden_state
    canvas = torch.tensor(fit(load_image(photo), config.size, "letterbox").pixels)
    canvas = canvas.permute(2, 0, 1).float() / 255 * 2 - 1
    kept = torch.cumprod(1 - betas(), dim=0)[config.step]
    window = config.window or config.size
    noise = torch.randn(
        1, 4, window // 8, window // 8, generator=torch.Generator().manual_seed(config.seed)
    )
    starts = [0, config.size - window] if window < config.size else [0]
    total: dict[str, Tensor] = {}
    count: dict[str, Tensor] = {}
    for top in starts:
        for left in starts:
            pixels = canvas[None, :, top : top + window, left : left + window]
            with torch.no_grad():
                latents = vae.encode(pixels).latent_dist.mean * vae.config.scaling_factor
            noised = (kept.sqrt() * latents + (1 - kept).sqrt() * noise).float()
            for name, values in hooked_full_pass(unet, noised, config.step, text).items():
                cell = window // values.shape[-1]
                side = config.size // cell
                total.setdefault(name, torch.zeros(values.shape[1], side, side))
                count.setdefault(name, torch.zeros(side, side))
                y, x, k = top // cell, left // cell, values.shape[-1]
                total[name][:, y : y + k, x : x + k] += values[0]
                count[name][y : y + k, x : x + k] += 1
    return {name: total[name] / count[name] for name in LAYERS}


@pytest.mark.parametrize(
    ("category", "prompt"), [("cat", "a photo of cat"), (None, "")], ids=["cat", "no category"]
)
def test_maps_equal_the_published_computation(sd_folder, config, photo, category, prompt):
    maps = extract(config, photo, category)
    for name, expected in slow_maps(sd_folder, config, photo, prompt).items():
        error = (maps[name].values - expected).norm() / expected.norm()
        assert error < 1e-4, name


def test_one_pass_without_windows(sd_folder, config, photo):
    whole = replace(config, window=None)
    maps = extract(whole, photo)
    for name, expected in slow_maps(sd_folder, whole, photo, "").items():
        assert (maps[name].values - expected).norm() < 1e-4 * expected.norm()


def test_maps_lie_on_the_photo_as_the_canvas_does(config, photo):
    maps = extract(config, photo)
    content = round(192 * 313 / 471)  # 128 of 192 px
    corner = (192 - content) // 2
    for name, side in zip(LAYERS, (3, 6, 12), strict=True):
        grid = maps[name].grid
        cell = 192 / side
        assert grid.shape == (side, side)
        assert grid.stride == pytest.approx((cell * 471 / 192, cell * 313 / content))
        assert grid.offset == pytest.approx((0, -corner * 313 / content))


def test_noise_and_noising_are_the_published_numbers(backbone):
    """Worked values: t=100 and the first draws of seed 42."""
    assert backbone.signal == pytest.approx(0.9456, abs=5e-5)
    assert backbone.noise == pytest.approx(0.3252, abs=5e-5)
    noise = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(42))
    assert noise.flatten()[:4].tolist() == pytest.approx(
        [1.9269, 1.4873, 0.9007, -2.1055], abs=5e-5
    )


def test_the_same_photo_gives_the_same_maps_whatever_ran_before(backbone, photo, other_photo):
    first = backbone.extract([load_image(photo)])[0]
    torch.randn(1000)
    backbone.extract([load_image(other_photo, "dog")])
    again = backbone.extract([load_image(photo)])[0]
    for name in LAYERS:
        assert torch.equal(first[name].values, again[name].values)


def test_the_global_generator_is_neither_read_nor_moved(backbone, photo):
    torch.manual_seed(7)
    state = torch.get_rng_state()
    backbone.extract([load_image(photo)])
    assert torch.equal(torch.get_rng_state(), state)


def test_two_photos_equal_one_and_one(backbone, photo, other_photo):
    images = [load_image(photo, "cat"), load_image(other_photo)]
    both = backbone.extract(images)
    for image, together in zip(images, both, strict=True):
        (alone,) = backbone.extract([image])
        for name in LAYERS:
            torch.testing.assert_close(
                alone[name].values, together[name].values, rtol=1e-5, atol=1e-5
            )


@pytest.mark.parametrize("batch", [1, 3, 8])  # four windows a photo: passes of one and of more
def test_photos_that_share_a_pass_keep_their_own_prompts(config, photo, other_photo, batch):
    """As many windows of a photo in a pass as come, of the next one in the same pass."""
    backbone = config.build(Runtime(batch=batch))
    images = [load_image(photo, "cat"), load_image(other_photo, "bus"), load_image(photo, "bus")]
    together = backbone.extract(images)
    for found, image in zip(together, images, strict=True):
        (alone,) = backbone.extract([image])
        for name in LAYERS:
            torch.testing.assert_close(found[name].values, alone[name].values, rtol=1e-4, atol=1e-5)
            assert found[name].grid == alone[name].grid
    assert not torch.allclose(together[0][LAYERS[0]].values, together[2][LAYERS[0]].values)


def test_the_batch_bound_does_not_change_the_maps(config, photo):
    maps = [config.build(Runtime(batch=size)).extract([load_image(photo)])[0] for size in (1, 3, 4)]
    for name in LAYERS:
        for other in maps[1:]:
            error = (maps[0][name].values - other[name].values).norm()
            assert error < 1e-5 * maps[0][name].values.norm()


def test_seed_step_and_prompt_matter(config, photo):
    plain = extract(config, photo)[LAYERS[1]].values
    for changed in (replace(config, seed=43), replace(config, step=261)):
        assert not torch.allclose(extract(changed, photo)[LAYERS[1]].values, plain, rtol=1e-3)
    named = extract(config, photo, "cat")[LAYERS[1]].values
    assert not torch.allclose(named, plain, rtol=1e-3)


def test_an_ensemble_is_the_mean_of_its_members(sd_folder, config, photo):
    """DIFT: the mean of the maps of several draws; the first one is that of ensemble 1."""
    config = replace(config, window=None, size=128)
    unet, vae, text_encoder, tokenizer = load_whole(sd_folder)
    ids = tokenizer("", padding="max_length", max_length=77, return_tensors="pt").input_ids
    canvas = torch.tensor(fit(load_image(photo), 128, "letterbox").pixels)
    canvas = canvas.permute(2, 0, 1)[None].float() / 127.5 - 1
    kept = torch.cumprod(1 - betas(), dim=0)[100]
    generator = torch.Generator().manual_seed(42)
    with torch.no_grad():
        text = text_encoder(ids).last_hidden_state
        latents = vae.encode(canvas).latent_dist.mean * vae.config.scaling_factor
    members = []
    for _ in range(3):
        noise = torch.randn(1, 4, 16, 16, generator=generator)
        noised = (kept.sqrt() * latents + (1 - kept).sqrt() * noise).float()
        members.append(hooked_full_pass(unet, noised, 100, text))
    maps = extract(replace(config, ensemble=3), photo)
    for name in LAYERS:
        expected = torch.stack([member[name][0] for member in members]).mean(dim=0)
        assert (maps[name].values - expected).norm() < 1e-4 * expected.norm()
    for name, values in extract(config, photo).items():
        assert (values.values - members[0][name][0]).norm() < 1e-4 * members[0][name].norm()


def test_a_sampled_latent_is_seeded(config, photo):
    sampled = replace(config, latent="sample")
    first, again = extract(sampled, photo), extract(sampled, photo)
    mean = extract(config, photo)
    assert torch.equal(first[LAYERS[1]].values, again[LAYERS[1]].values)
    assert not torch.allclose(first[LAYERS[1]].values, mean[LAYERS[1]].values, rtol=1e-3)


def test_only_what_is_needed_is_kept(config, photo):
    """No VAE decoder, and the text encoder is gone once the prompt is encoded."""
    from transformers import CLIPTextModel

    gc.collect()
    before = sum(type(thing) is CLIPTextModel for thing in gc.get_objects())
    backbone = config.build(Runtime())
    backbone.extract([load_image(photo)])
    assert not any(
        name.startswith(("decoder", "post_quant")) for name, _ in backbone.vae.named_modules()
    )
    gc.collect()
    assert sum(type(thing) is CLIPTextModel for thing in gc.get_objects()) == before


def test_a_prompt_is_encoded_once(config, photo, monkeypatch):
    from sdcorr.backbones import _text

    loads = []
    load = _text.load_part
    monkeypatch.setattr(_text, "load_part", lambda *args: loads.append(args) or load(*args))
    backbone = config.build(Runtime())
    for category in ("cat", "dog", "cat", "cat"):
        backbone.extract([load_image(photo, category)])
    assert len(loads) == 2


def test_a_category_can_be_required(config):
    required = replace(config, prompt_without_category=None)
    assert required.prompt_for("cat") == "a photo of cat"
    with pytest.raises(BadRecipe, match="needs a category"):
        required.prompt_for(None)


def test_a_fixed_prompt_ignores_the_category(config):
    fixed = replace(config, prompt="a photo")
    assert fixed.prompt_for("cat") == fixed.prompt_for(None) == "a photo"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 100}, "size must be a multiple of 64 px, got 100"),
        ({"window": 100}, "window must be a multiple of 64"),
        ({"window": 0}, "window must be a multiple of 64"),
        ({"size": 64 * 10**6}, "size must be at most 8192 px"),
        ({"prompt_without_category": "a {category}"}, "must not name"),
        ({"window": 256}, "window 256 is larger than size 192"),
        ({"overlap": 128}, "overlap must be a multiple of 64 px below 128, got 128"),
        ({"overlap": 32}, "overlap must be"),
        ({"overlap": -64}, "overlap must be"),
        ({"ensemble": 0}, "ensemble must be at least 1"),
        ({"layers": ()}, "layers must be at least one"),
        ({"prompt": "a {breed} of {category}"}, r"may name \{category\} only"),
        ({"prompt": "a {"}, "is no template"),
    ],
)
def test_fields_out_of_range_are_refused(config, changes, message):
    with pytest.raises(BadRecipe, match=message):
        replace(config, **changes)


def test_a_step_past_the_schedule(config):
    with pytest.raises(BadRecipe, match=r"step must be in 0\.\.1000 \(exclusive\), got 1000"):
        replace(config, step=1000).build(Runtime())


def test_an_unknown_layer(config):
    with pytest.raises(UnknownName, match=r"did you mean 'up_blocks\.1\.attentions\.1'"):
        replace(config, layers=("up_blocks.1.attention.1",)).build(Runtime())


def test_a_prompt_too_long_for_the_text_encoder(config, photo):
    long = replace(config, prompt_without_category="photo " * 100)
    with pytest.raises(BadRecipe, match="at most 77 fit"):
        extract(long, photo)


def test_a_scheduler_without_betas(sd_folder, config, tmp_path):
    folder = tmp_path / "sd"
    shutil.copytree(sd_folder, folder)
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps({"beta_start": 0.1}))
    with pytest.raises(BadCheckpoint, match="scheduler lacks num_train_timesteps, beta_end"):
        replace(config, model=str(folder)).build(Runtime())


def test_a_unet_for_inpainting_is_refused(tmp_path_factory, config):
    from tests.tiny import write_stable_diffusion

    folder = write_stable_diffusion(tmp_path_factory.mktemp("inpainting"), in_channels=9)
    with pytest.raises(BadCheckpoint, match="no text-to-image UNet"):
        replace(config, model=str(folder)).build(Runtime())


def copy_of(sd_folder, tmp_path):
    return shutil.copytree(sd_folder, tmp_path / "sd")


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_weights_in_the_older_names_of_attention_load_the_same(sd_folder, config, photo, tmp_path):
    """Stable Diffusion 1.5's VAE is stored with key, query, value and proj_attn."""
    from safetensors.torch import load_file, save_file

    folder = copy_of(sd_folder, tmp_path)
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, value in load_file(path).items():
        for new, old in older.items():
            name = name.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        tensors[name] = value
    assert "encoder.mid_block.attentions.0.query.weight" in tensors
    save_file(tensors, path, metadata={"format": "pt"})
    found = extract(replace(config, model=str(folder)), photo)
    for name, expected in extract(config, photo).items():
        assert torch.equal(found[name].values, expected.values)


@pytest.mark.parametrize(
    ("part", "changes", "words"),
    [
        ("text_encoder", {"num_hidden_layers": 1}, "no place for"),
        ("vae", {"use_quant_conv": False}, "no place for"),
        ("vae", {"scaling_factor": 0}, "scaling_factor must be positive"),
        ("unet", {"norm_num_groups": 0}, "cannot be loaded"),
    ],
)
def test_a_config_that_does_not_fit_its_weights_is_refused(
    sd_folder, config, photo, tmp_path, part, changes, words
):
    folder = copy_of(sd_folder, tmp_path)
    change_json(folder / part / "config.json", **changes)
    with pytest.raises(BadCheckpoint, match=words):
        extract(replace(config, model=str(folder)), photo)


@pytest.mark.parametrize("changes", [{"beta_schedule": "odd"}, {"beta_start": "a"}])
def test_a_scheduler_that_cannot_be_used(sd_folder, config, tmp_path, changes):
    folder = copy_of(sd_folder, tmp_path)
    change_json(folder / "scheduler" / "scheduler_config.json", **changes)
    with pytest.raises(BadCheckpoint, match="scheduler cannot be used"):
        replace(config, model=str(folder)).build(Runtime())


def test_a_schedule_rescaled_to_zero_snr_is_honoured(sd_folder, config, tmp_path, backbone):
    folder = copy_of(sd_folder, tmp_path)
    change_json(folder / "scheduler" / "scheduler_config.json", rescale_betas_zero_snr=True)
    assert replace(config, model=str(folder)).build(Runtime()).signal != backbone.signal


def test_a_layer_that_makes_no_map_is_refused(config):
    with pytest.raises(BadRecipe, match="'time_embedding' makes no map, but 2-D"):
        replace(config, layers=("time_embedding",)).build(Runtime())


def test_half_precision_is_averaged_in_float32(config, photo):
    """Four windows of 20000 in float16 would sum to infinity."""
    backbone = config.build(Runtime(dtype=torch.float16))
    backbone.unet.up_blocks[1].attentions[1].register_forward_hook(
        lambda _module, _inputs, output: (torch.full_like(output[0], 20000.0),)
    )
    (maps,) = backbone.extract([load_image(photo)])
    assert maps[LAYERS[1]].values.eq(20000).all()

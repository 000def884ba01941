"""FreeU as the code of GeoAware-SC applies it, against a way up written out by hand."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from sdcorr.backbones._freeu import FreeU, freeu
from sdcorr.backbones._taps import read_layers
from sdcorr.backbones.stable_diffusion import StableDiffusion
from sdcorr.errors import BadRecipe
from sdcorr.recipes import find_recipe
from sdcorr.runtime import Runtime
from tests.full_size import FULL_SIZE
from tests.papers.reference_diffusion import SD_15, damp, run_unet
from tests.tiny import stable_diffusion_parts

GEOAWARE = find_recipe("geoaware").groups[0].backbone
# widths that differ as the real ones do: 1280, 1280, 640, 320
SETTINGS = (FreeU(64, backbone=1.2, skip=0.9), FreeU(32, backbone=1.4, skip=0.2))
PAIRS = {one.channels: (one.backbone, one.skip) for one in SETTINGS}


def make_unet() -> torch.nn.Module:
    """The same weights each time."""
    parts = stable_diffusion_parts(block_out_channels=(16, 32, 64, 64), attention_head_dim=2)
    return parts["unet"].eval().requires_grad_(False)


@pytest.fixture(scope="module")
def unet() -> torch.nn.Module:
    return make_unet()


@pytest.fixture(scope="module")
def exact() -> torch.nn.Module:
    return make_unet().double()


def inputs(height: int, width: int, count: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(count, 4, height, width, generator=generator),
        torch.randn(1, 77, 32, generator=generator),
    )


def forward(unet: torch.nn.Module, latents: Tensor, text: Tensor) -> Tensor:
    repeated = text.expand(len(latents), -1, -1)
    return unet(latents, 50, encoder_hidden_states=repeated).sample


def error(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return float((got.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize(
    ("latent", "count"), [((64, 64), 1), ((40, 40), 1), ((24, 40), 2), ((20, 12), 2)], ids=str
)
def test_every_layer_of_the_way_up_agrees_with_the_published_form(unet, exact, latent, count):
    """64 is a window of the paper; the others have odd maps, whose middle is elsewhere."""
    latents, text = inputs(*latent, count)
    expected = [
        run_unet(exact, one[None].double(), 50, text.double(), {}, PAIRS) for one in latents
    ]
    names = tuple(name for name in expected[0] if name != "out")
    assert len(names) == 12 + 9 + 4
    with freeu(unet, SETTINGS):
        found = read_layers(unet, (*names, "conv_out"), lambda: forward(unet, latents, text))
    found["out"] = found.pop("conv_out")
    for name, values in found.items():
        assert error(values, torch.cat([one[name] for one in expected])) < 1e-4, name


@pytest.mark.parametrize("only", SETTINGS, ids=["64", "32"])
def test_one_number_of_channels_alone(unet, exact, only):
    latents, text = inputs(32, 32)
    pairs = {only.channels: (only.backbone, only.skip)}
    expected = run_unet(exact, latents.double(), 50, text.double(), {}, pairs)["out"]
    with freeu(unet, (only,)):
        assert error(forward(unet, latents, text), expected) < 1e-4
    assert error(forward(unet, latents, text), expected) > 1e-3


@pytest.mark.parametrize("shape", [(8, 8), (15, 15), (5, 8), (2, 2), (1, 1)], ids=str)
def test_the_filter_of_the_reference_is_the_middle_of_the_shifted_spectrum(shape):
    skip = torch.randn(1, 3, *shape, generator=torch.Generator().manual_seed(0)).double()
    spectrum = torch.fft.fftshift(torch.fft.fftn(skip, dim=(-2, -1)), dim=(-2, -1))
    row, column = shape[0] // 2, shape[1] // 2
    mask = torch.ones_like(skip)
    mask[..., max(row - 1, 0) : row + 1, max(column - 1, 0) : column + 1] = 0.2
    back = torch.fft.ifftshift(spectrum * mask, dim=(-2, -1))
    expected = torch.fft.ifftn(back, dim=(-2, -1)).real
    torch.testing.assert_close(damp(skip, 0.2), expected)


def skip_after(unet: torch.nn.Module, skip: Tensor, setting: FreeU) -> Tensor:
    """What FreeU makes of the skip, and of nothing else, at the first resnet of the way up."""
    given = []
    resnet = unet.up_blocks[0].resnets[0]
    hidden = torch.randn(1, setting.channels, *skip.shape[-2:])
    with freeu(unet, (setting,)):
        watch = resnet.register_forward_pre_hook(lambda _module, inputs: given.append(inputs[0]))
        resnet(torch.cat([hidden, skip], dim=1), torch.zeros(1, 64))
        watch.remove()
    assert torch.equal(given[0][:, : setting.channels], hidden)
    return given[0][:, setting.channels :]


def test_the_filter_by_hand(unet):
    """A level is the lowest frequency, a checkerboard the highest."""
    level = torch.full((1, 64, 8, 8), 3.0)
    board = (-1.0) ** (torch.arange(8)[:, None] + torch.arange(8)).expand(1, 64, 8, 8)
    damped = skip_after(unet, level + board, FreeU(64, backbone=1.0, skip=0.2))
    torch.testing.assert_close(damped, 0.2 * level + board, rtol=0, atol=1e-5)


def test_a_layer_is_read_as_the_next_resnet_takes_it(unet):
    """Published: scaled in place, so that the returned map shows it."""
    latents, text = inputs(32, 32)
    layers = ("up_blocks.0.resnets.1", "up_blocks.1.attentions.1", "up_blocks.2.attentions.1")
    taken = {}
    hooks = [
        unet.up_blocks[block]
        .resnets[2]
        .register_forward_pre_hook(
            lambda _module, inputs, block=block: taken.update({block: inputs[0]})
        )
        for block in (0, 1, 2)
    ]
    forward(unet, latents, text)
    without = dict(taken)
    with freeu(unet, SETTINGS):
        found = read_layers(unet, layers, lambda: forward(unet, latents, text))
        forward(unet, latents, text)
    for hook in hooks:
        hook.remove()
    for block, (layer, channels) in enumerate(zip(layers, (64, 64, 32), strict=True)):
        assert torch.equal(found[layer], taken[block][:, :channels])
        assert not torch.equal(found[layer], without[block][:, :channels])


def test_by_hand_where_hidden_states_alone_are_scaled(unet):
    """The first resnet's input: the middle block's output, its first half times 1.2."""
    latents, text = inputs(32, 32)
    first, middle = "up_blocks.0.resnets.0", "mid_block"
    seen = {}
    watch = unet.get_submodule(first).register_forward_pre_hook(
        lambda _module, inputs: seen.update(joined=inputs[0])
    )
    plain = read_layers(unet, [middle], lambda: forward(unet, latents, text))[middle]
    forward(unet, latents, text)
    skip = seen["joined"][:, 64:]
    with freeu(unet, (FreeU(64, backbone=1.2, skip=1.0),)):
        forward(unet, latents, text)
    watch.remove()
    torch.testing.assert_close(seen["joined"][:, :32], 1.2 * plain[:, :32])
    assert torch.equal(seen["joined"][:, 32:64], plain[:, 32:])
    torch.testing.assert_close(seen["joined"][:, 64:], skip, rtol=0, atol=1e-5)


def test_the_published_resnets_of_the_real_unet(monkeypatch):
    """By channels of the hidden state: 1280 in the first seven, 640 in the next three."""
    import diffusers.utils.torch_utils as library

    calls = []

    def record(skip, threshold, scale):
        calls.append((*skip.shape[1:], threshold, scale))
        return skip

    monkeypatch.setattr(library, "fourier_filter", record)
    with torch.device("meta"):
        unet = FULL_SIZE[SD_15]()["unet"]
        latents, text = torch.zeros(1, 4, 64, 64), torch.zeros(1, 77, 768)
    with freeu(unet, GEOAWARE.freeu):
        unet(latents, 50, encoder_hidden_states=text)
    assert calls == [
        (1280, 8, 8, 1, 0.9), (1280, 8, 8, 1, 0.9), (1280, 8, 8, 1, 0.9),
        (1280, 16, 16, 1, 0.9), (1280, 16, 16, 1, 0.9), (640, 16, 16, 1, 0.9),
        (640, 32, 32, 1, 0.9), (640, 32, 32, 1, 0.2), (320, 32, 32, 1, 0.2),
        (320, 64, 64, 1, 0.2),
    ]  # fmt: skip


def test_a_number_of_channels_that_no_hidden_state_has(sd_folder):
    """As of the real UNet's settings on a narrower one: they would do nothing, without a word."""
    config = StableDiffusion(str(sd_folder), size=128, window=None, freeu=GEOAWARE.freeu)
    with pytest.raises(BadRecipe, match=r"with 1280 channels; this UNet's have 32, 64"):
        config.build(Runtime())


def test_only_geoaware_has_it():
    assert GEOAWARE.freeu == (FreeU(1280, 1.2, 0.9), FreeU(640, 1.4, 0.2))
    assert find_recipe("sd-dino").groups[0].backbone.freeu == ()
    assert not hasattr(find_recipe("cleandift-dino").groups[0].backbone, "freeu")


def test_diffusers_own_is_another_thing(unet, exact):
    """It goes by block, so that the next two blocks have other factors."""
    latents, text = inputs(32, 32)
    with freeu(unet, SETTINGS):
        ours = forward(unet, latents, text)
    exact.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    theirs = forward(exact, latents.double(), text.double())
    exact.disable_freeu()
    assert error(ours, theirs) > 1e-2


def test_nothing_stays_behind_also_when_the_pass_fails(unet):
    latents, text = inputs(16, 16)
    plain = forward(unet, latents, text)
    with freeu(unet, SETTINGS):
        assert not torch.equal(forward(unet, latents, text), plain)
    assert torch.equal(forward(unet, latents, text), plain)
    with pytest.raises(ZeroDivisionError), freeu(unet, SETTINGS):
        _ = 1 / 0
    assert torch.equal(forward(unet, latents, text), plain)
    with freeu(unet, ()):
        assert torch.equal(forward(unet, latents, text), plain)


def test_a_backbone_is_altered_in_its_passes_alone(sd_folder, photo):
    from sdcorr.preprocess import load_image

    layers = ("up_blocks.1.attentions.1",)
    config = StableDiffusion(str(sd_folder), size=128, window=None, layers=layers)
    plain, altered = (
        StableDiffusion(**(vars(config) | {"freeu": settings})).build(Runtime())
        for settings in ((), SETTINGS)
    )
    first, other = (one.extract([load_image(photo)])[0] for one in (plain, altered))
    assert not torch.allclose(first[layers[0]].values, other[layers[0]].values, rtol=1e-2)
    latents, text = inputs(16, 16)
    run = [partial(forward, one.unet, latents, text) for one in (plain, altered)]
    maps = [
        read_layers(one.unet, layers, go) for one, go in zip((plain, altered), run, strict=True)
    ]
    assert torch.equal(maps[0][layers[0]], maps[1][layers[0]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_in_half_precision(dtype):
    """The spectrum is computed in float32; the rest rounds as half does, about 1 %."""
    unet = make_unet()
    latents, text = inputs(24, 24)
    with freeu(unet, SETTINGS):
        full = forward(unet, latents, text)
        half = forward(unet.to(dtype), latents.to(dtype), text.to(dtype))
    assert half.dtype == dtype
    assert error(half, full.double()) < 0.05

"""What every backbone promises, checked on each file of the folder."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from sdcorr import plugins
from sdcorr.preprocess import load_image
from sdcorr.runtime import Runtime
from sdcorr.types import Backbone

NAMES = plugins.names("backbones")


@pytest.fixture(scope="module")
def built(checkpoints) -> dict[str, tuple[object, Backbone]]:
    """Each plug-in in small; a new file in the folder needs a line here."""
    changes = {
        "cleandift": {"size": 128},
        "constant": {},
        "dense_sift": {"size": 160},
        "dinov2": {"size": 168},
        "dinov3": {"size": 192},
        "sift": {"size": 160},
        "stable_diffusion": {"size": 128, "window": None},
        "stable_diffusion_xl": {"size": 128},
        "vit": {"size": 96, "stride": 4, "saliency": (0, 1)},
    }
    configs = {}
    for name in NAMES:
        config = plugins.find("backbones", name)(**changes[name])
        places = {needs.field: str(checkpoints[needs.model]) for needs in config.weights()}
        configs[name] = dataclasses.replace(config, **places)
    return {name: (config, config.build(Runtime())) for name, config in configs.items()}


@pytest.mark.parametrize("name", NAMES)
def test_declared_maps_and_channels_are_what_comes(built, photo, name):
    config, backbone = built[name]
    (maps,) = backbone.extract([load_image(photo)])
    assert tuple(maps) == config.maps
    assert {layer: one.values.shape[0] for layer, one in maps.items()} == backbone.channels
    for layer, one in maps.items():
        assert one.name == layer
        assert one.values.dtype == torch.float32
        assert not one.values.requires_grad
        assert one.grid.image == (313, 471)


@pytest.mark.parametrize("name", NAMES)
def test_same_photo_same_maps_in_any_order_and_company(built, photo, other_photo, name):
    _, backbone = built[name]
    first, second = load_image(photo), load_image(other_photo)
    alone = backbone.extract([first])[0]
    backbone.extract([second])
    together = backbone.extract([second, first, second])
    for layer, one in alone.items():
        # a batch of three may add in another order than one photo alone
        torch.testing.assert_close(together[1][layer].values, one.values, rtol=1e-5, atol=1e-5)
        assert torch.equal(together[0][layer].values, together[2][layer].values)
        assert torch.equal(backbone.extract([first])[0][layer].values, one.values)


@pytest.mark.parametrize("name", NAMES)
def test_no_photos_no_maps(built, name):
    assert built[name][1].extract([]) == ()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 1), (2, 90), (313, 471), (471, 313)])
def test_photos_of_any_shape(built, name, shape):
    photo = torch.arange(shape[0] * shape[1] * 3).reshape(*shape, 3).remainder(251).byte().numpy()
    (maps,) = built[name][1].extract([load_image(photo)])
    for one in maps.values():
        assert one.grid.image == shape
        assert one.grid.inside().any()


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_frozen_hashable_and_json(built, name):
    config, _ = built[name]
    assert hash(config) == hash(dataclasses.replace(config))
    json.dumps(dataclasses.asdict(config))
    for name in [field.name for field in dataclasses.fields(config)] or ["size"]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, name, None)


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_declared_with_their_revision(built, name):
    config, backbone = built[name]
    assert list(backbone.revisions) == [needs.model for needs in config.weights()]
    assert all(backbone.revisions.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_gives_float32_maps_close_by(built, photo, name, dtype):
    config, full = built[name]
    half = config.build(Runtime(dtype=dtype)).extract([load_image(photo)])[0]
    for layer, one in full.extract([load_image(photo)])[0].items():
        assert half[layer].values.dtype == torch.float32
        error = (half[layer].values - one.values).norm() / one.values.norm()
        assert error < 0.1  # bfloat16 keeps 8 bits; dozens of layers add up

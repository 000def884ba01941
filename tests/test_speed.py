"""The scripts that measure speed and precision, in small: that they run and find what they should.

No time is ever checked.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch

from eval import clicks, precision, speed
from sdcorr.preprocess import load_image
from sdcorr.presets import RECIPES
from sdcorr.runtime import Runtime
from tests import tiny


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("speed")
    out = folder / "speed.json"
    words = ["--smoke", "--repeats", "1", "--dtype", "float32", "--device", "cpu"]
    words += ["--batches", "2", "--weights", str(folder), "--out", str(out)]
    result = speed.main(words)
    assert json.loads(out.read_text()) == json.loads(json.dumps(result))
    return result


def test_plain_and_ours_find_the_same(measured):
    found = measured["found"]
    assert found["cells"] > 100
    assert found["same nearest cell"] + found["ties within 1e-5"] == found["cells"]
    assert found["largest difference of maps, share of their largest value"] < 1e-4


def test_every_figure_is_there(measured):
    stages = {name.split(", ")[1] for name in measured["seconds"]}
    assert stages >= {"photo", "VAE", "UNet", "DINOv2", "pair", "click"}
    for group in ("seconds", "ratios", "benchmark", "memory, GB"):
        assert all(value >= 0 for value in measured[group].values())
    assert [one["photos"] for one in measured["photos together"]] == [1, 2]


def test_the_cost_of_a_benchmark_by_hand():
    """Two pairs of three photos; 10 s a photo, 1 s a pair."""
    assert speed.cost(pairs=2, encodings=3, photo=10.0, pair=1.0) == 32.0


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("precision")
    places = {"stable_diffusion": str(folder / "sd"), "dinov2": str(folder / "dinov2")}
    tiny.write_stable_diffusion(folder / "sd")
    tiny.write_dinov2(folder / "dinov2")
    photos = [load_image(photo) for photo in precision.PHOTOS]
    return precision.compare(tiny.shrink(RECIPES["sd-dino"]), places, Runtime(), photos)


def test_half_precision_moves_few_nearest_cells(compared):
    shares = compared["unchanged nearest cell, share"]
    assert set(shares) == {"bfloat16", "float16, emulated"}
    for by_part in shares.values():
        assert set(by_part) == {"stable_diffusion", "dinov2", "fused"}
        assert all(0.8 <= share <= 1 for share in by_part.values())


def test_emulated_float16_rounds_layers_and_leaves_none_rounding():
    """Weights, what goes in and what comes out have 11 bits; sums inside a layer are exact."""

    class Model:
        def __init__(self, part: torch.nn.Module) -> None:
            self.backbones = {"a": SimpleNamespace(unet=part)}

    torch.manual_seed(0)
    layer = torch.nn.Linear(30, 30).requires_grad_(False)
    inputs, weight, bias = torch.randn(4, 30), layer.weight.clone(), layer.bias.clone()
    with precision.rounding_to_float16(Model(torch.nn.Sequential(layer))):
        found = layer(inputs)
    expected = inputs.half().double() @ weight.half().double().T + bias.half().double()
    assert torch.equal(found, found.half().float())
    assert (found - expected).abs().max() < 2e-3
    assert not torch.equal(found, layer(inputs))  # the weights stay rounded, the hooks are gone
    assert torch.isinf(precision.rounded(torch.tensor(7e4)))


def test_ties_count_as_unchanged():
    rows = torch.tensor([[0.5, 0.5 - 1e-6, 0.1], [0.2, 0.9, 0.3]])
    expected = (torch.tensor([0, 1]), rows)
    assert precision.unchanged(expected, torch.tensor([1, 1])) == 1.0
    assert precision.unchanged(expected, torch.tensor([2, 1])) == 0.5


def test_clicks_are_answered_by_the_real_server(tmp_path):
    out = tmp_path / "clicks.json"
    found = clicks.main(
        ["same-position", "--matchers", "nearest", "--clicks", "3", "--out", str(out)]
    )
    assert json.loads(out.read_text()) == found
    assert [(row["recipe"], row["matcher"]) for row in found["rows"]] == [
        ("same-position", "its own"), ("same-position", "nearest")
    ]  # fmt: skip
    for row in found["rows"]:
        assert list(row) == found["columns"]
        assert 0 < row["median, ms"] <= row["slowest, ms"]

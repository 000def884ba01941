from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from sdcorr.backbones.vit import SALIENCY, Vit, cls_attention, to_unit_range
from sdcorr.errors import BadCheckpoint, BadRecipe, UnknownName
from sdcorr.fusion import Foreground, Group, MapUse, foreground_cells, join
from sdcorr.preprocess import load_image
from sdcorr.recipe import Recipe
from sdcorr.runtime import Runtime
from sdcorr.types import FeatureMap
from tests.papers import reference_transformers as reference
from tests.papers.reference_transformers import Weights
from tests.tiny import vit_parts, write

SIZE = 72  # 9 x 9 patches, or 17 x 17 in steps of 4
# as in facebook/dino-vits8 and google/vit-base-patch16-224, of one block
BLOCK = reference.with_bias(
    "attention.attention.query", "attention.attention.key", "attention.attention.value",
    "attention.output.dense", "intermediate.dense", "output.dense", "layernorm_before",
    "layernorm_after",
)  # fmt: skip
BESIDE = reference.with_bias("embeddings.patch_embeddings.projection", "layernorm")
TABLES = ("embeddings.cls_token", "embeddings.position_embeddings")
# what transformers calls them in memory since version 5
LATER = {
    "encoder.layer.": "layers.",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Twelve blocks, with weights of which each counts."""
    root = tmp_path_factory.mktemp("vit")
    return reference.rewrite(write(root / "plain", vit_parts()), root / "own", reference.randomise)


def maps_of(folder: Path, photo: np.ndarray, **fields) -> dict[str, FeatureMap]:
    config = Vit(str(folder), **{"size": SIZE} | fields)
    (maps,) = config.build(Runtime()).extract([load_image(photo)])
    return maps


def extract(folder: Path, photo: np.ndarray, **fields) -> Tensor:
    return next(iter(maps_of(folder, photo, **fields).values())).values


def canvas_tensor(photo: np.ndarray, how: str = "letterbox") -> Tensor:
    """The canvas as the papers normalise it: ``(1, 3, H, W)``."""
    canvas = {"letterbox": reference.letterbox, "shorter": reference.shorter}[how](photo, SIZE)
    return reference.normalise(canvas).float()[None]


# -- against transformers ----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["letterbox", "shorter"])
def test_tokens_are_those_of_transformers(folder, photo, how):
    """Its own position tables; on 72 x 108 pixels, the last half patch is not read."""
    from transformers import ViTModel

    model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    inputs = canvas_tensor(photo, how)
    with torch.no_grad():
        output = model(inputs, interpolate_pos_encoding=True, output_hidden_states=True)
    shape = tuple(side // 8 for side in inputs.shape[2:])
    assert shape == ((9, 9) if how == "letterbox" else (9, 13))
    fields = {"fit": how, "positions": "transformers"}
    for block, hidden in ((0, output.hidden_states[1]), (7, output.hidden_states[8])):
        expected = hidden[0, 1:].T.reshape(24, *shape)
        got = extract(folder, photo, block=block, **fields)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    expected = output.last_hidden_state[0, 1:].T.reshape(24, *shape)
    got = extract(folder, photo, norm=True, **fields)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("how", ["letterbox", "shorter"])
@pytest.mark.parametrize("heads", [(0, 2, 4, 5), (3,), (5, 1)])
def test_saliency_is_the_attention_that_transformers_has(folder, photo, how, heads):
    from transformers import ViTModel

    model = ViTModel.from_pretrained(folder, attn_implementation="eager", add_pooling_layer=False)
    inputs = canvas_tensor(photo, how)
    with torch.no_grad():
        output = model.eval()(inputs, interpolate_pos_encoding=True, output_attentions=True)
    looks = sum(output.attentions[11][0, head, 0, 1:] for head in heads) / len(heads)
    found = maps_of(folder, photo, fit=how, positions="transformers", saliency=heads, block=3)
    inside = found[SALIENCY].grid.inside()
    low, high = looks[inside].min(), looks[inside].max()
    expected = (looks - low) / (high - low)
    torch.testing.assert_close(found[SALIENCY].values.flatten(), expected, rtol=0, atol=1e-5)
    assert (inside.sum() < len(inside)) == (how == "letterbox")


# -- saliency ----------------------------------------------------------------------------------


def test_attention_of_the_first_token_by_loops():
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(2, 7, 12, generator=generator) for _ in range(2))
    got = cls_attention(query, key, heads=3)
    assert got.shape == (2, 3, 7)
    for photo in range(2):
        for head in range(3):
            own = slice(4 * head, 4 * head + 4)
            logits = [
                float(query[photo, 0, own] @ key[photo, token, own]) / 2.0 for token in range(7)
            ]
            powers = [np.exp(one) for one in logits]
            expected = [one / sum(powers) for one in powers]
            assert got[photo, head].tolist() == pytest.approx(expected, rel=1e-5)


def test_attention_is_computed_in_full_precision():
    query = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    got = cls_attention(query, query, heads=2)
    assert got.dtype == torch.float32
    assert torch.equal(got, cls_attention(query.float(), query.float(), heads=2))


def test_range_is_that_of_the_photo_alone():
    values = torch.tensor([[9.0], [2.0], [4.0], [3.0], [-7.0]])
    inside = torch.tensor([False, True, True, True, False])
    assert to_unit_range(values, inside)[:, 0].tolist() == [3.5, 0.0, 1.0, 0.5, -4.5]


def test_all_alike_is_all_salient():
    values = torch.tensor([[2.0], [2.0], [9.0]])
    assert to_unit_range(values, torch.tensor([True, True, False])).eq(1).all()


def test_each_photo_of_a_batch_has_its_own_range(folder, photo, other_photo):
    config = Vit(str(folder), size=SIZE, saliency=(0, 2, 4, 5))
    images = [load_image(photo), load_image(other_photo), load_image(photo)]
    for maps in config.build(Runtime()).extract(images):
        salient = maps[SALIENCY].values.flatten()[maps[SALIENCY].grid.inside()]
        assert salient.min() == 0
        assert salient.max() == 1


@pytest.mark.parametrize(
    ("facet", "block"), [("token", 11), ("query", 11), ("key", 11), ("value", 11), ("key", 9)]
)
def test_saliency_leaves_the_facet_as_it_is(folder, photo, facet, block):
    """Also where it is a projection of the block that saliency reads itself."""
    fields = {"facet": facet, "block": block, "stride": 4, "fit": "shorter"}
    both = maps_of(folder, photo, saliency=(0, 2, 4, 5), **fields)
    assert tuple(both) == (facet, SALIENCY)
    assert torch.equal(both[facet].values, extract(folder, photo, **fields))
    stages = reference.Model(folder).run(
        reference.normalise(reference.shorter(photo, SIZE)), 4, "original"
    )
    expected = reference.saliency(stages)
    torch.testing.assert_close(
        both[SALIENCY].values.flatten().double(), expected, rtol=0, atol=1e-4
    )


def test_saliency_with_norm(folder, photo):
    with_norm = maps_of(folder, photo, norm=True, saliency=(1,))
    assert torch.equal(with_norm["token"].values, extract(folder, photo, norm=True))
    assert torch.equal(
        with_norm[SALIENCY].values, maps_of(folder, photo, saliency=(1,))[SALIENCY].values
    )


@pytest.mark.parametrize("heads", [(6,), (-1,), (0, 2, 4, 12)])
def test_heads_that_are_not_there(folder, heads):
    with pytest.raises(BadRecipe, match=r"vit: saliency must name heads in 0\.\.5, got \(.*\)"):
        Vit(str(folder), size=SIZE, saliency=heads).build(Runtime())


def test_a_foreground_needs_the_map(folder):
    config = Vit(str(folder), size=SIZE)
    with pytest.raises(UnknownName, match="map for the foreground called 'vit/saliency'"):
        Recipe(
            "mine",
            (Group("vit", config, (MapUse("token"),)),),
            foreground=Foreground("vit/saliency", above=0.05),
        )


def test_foreground_is_what_exceeds_the_threshold(folder, photo, other_photo):
    """Strictly, on both photos; and where nothing does, it is said."""
    maps = [maps_of(folder, one, saliency=(0, 2)) for one in (photo, other_photo)]
    named = [{f"vit/{key}": one for key, one in pair.items()} for pair in maps]
    groups = (Group("vit", Vit(saliency=(0, 2)), (MapUse("token"),)),)
    similarity = join(groups, *named, Foreground("vit/saliency", above=0.2))
    for mask, one in zip((similarity.source_foreground, similarity.foreground), maps, strict=True):
        assert mask.tolist() == [value > 0.2 for value in one[SALIENCY].values.flatten().tolist()]
        assert 0 < mask.sum() < len(mask)
    plain = join(groups, *named)
    assert plain.foreground is plain.source_foreground is None
    with pytest.raises(
        BadRecipe, match=r"no cell of the photo is foreground: 'saliency' .* above 1"
    ):
        foreground_cells(maps[0][SALIENCY], 1.0, maps[0][SALIENCY].grid)


# -- checkpoints as they are published ---------------------------------------------------------


def test_the_tiny_checkpoint_has_the_names_of_the_hub(folder):
    stored = set(reference.Model(folder).weights)
    blocks = {f"encoder.layer.{k}.{name}" for k in range(12) for name in BLOCK}
    assert stored == {*TABLES, *BESIDE, *blocks}


def with_pooler(tensors: Weights) -> Weights:
    """As facebook/dino-vits8 holds it."""
    return tensors | {
        "pooler.dense.weight": torch.ones(24, 24),
        "pooler.dense.bias": torch.ones(24),
    }


def with_head(tensors: Weights) -> Weights:
    """As google/vit-base-patch16-224 holds it: all but the head under ``vit.``."""
    named = {f"vit.{name}": value for name, value in tensors.items()}
    return named | {"classifier.weight": torch.ones(10, 24), "classifier.bias": torch.ones(10)}


def with_later_names(tensors: Weights) -> Weights:
    """As a transformers would save it that keeps the names it has in memory."""
    return {
        re.sub("|".join(map(re.escape, LATER)), lambda found: LATER[found[0]], name): value
        for name, value in tensors.items()
    }


@pytest.mark.parametrize("rename", [with_pooler, with_head, with_later_names])
def test_published_names_give_the_same_maps(folder, photo, tmp_path, rename):
    kinds = {with_head: ["ViTForImageClassification"]}
    other = reference.rewrite(
        folder, tmp_path / "other", rename, architectures=kinds.get(rename, ["ViTModel"])
    )
    stored = reference.load_file(other / "model.safetensors")
    sample = {
        with_pooler: "pooler.dense.weight",
        with_head: "vit.encoder.layer.0.attention.attention.query.weight",
        with_later_names: "layers.11.mlp.fc2.bias",
    }
    assert sample[rename] in stored
    fields = {"facet": "key", "block": 9, "saliency": (0, 2, 4, 5)}
    expected, got = (maps_of(one, photo, **fields) for one in (folder, other))
    for name, one in expected.items():
        assert torch.equal(got[name].values, one.values)
    assert torch.equal(extract(other, photo), extract(folder, photo))


@pytest.mark.parametrize(
    "missing",
    ["vit.encoder.layer.7.output.dense.bias", "vit.embeddings.cls_token", "vit.layernorm.bias"],
)
def test_a_weight_that_is_missing_beside_a_head_is_refused(folder, tmp_path, missing):
    def without(tensors: Weights) -> Weights:
        named = with_head(tensors)
        del named[missing]
        return named

    other = reference.rewrite(folder, tmp_path / "other", without)
    with pytest.raises(BadCheckpoint, match="is no whole ViTModel: 1 weights are missing"):
        Vit(str(other), size=SIZE).build(Runtime())


def test_a_head_that_is_saved_alone_is_no_checkpoint(folder, tmp_path):
    other = reference.rewrite(
        folder, tmp_path / "other", lambda _: {"classifier.weight": torch.ones(10, 24)}
    )
    with pytest.raises(BadCheckpoint, match="weights are missing"):
        Vit(str(other), size=SIZE).build(Runtime())


def test_the_model_is_loaded_without_pooler_and_in_eval_mode(folder):
    backbone = Vit(str(folder), size=SIZE).build(Runtime())
    model = backbone.transformer.model
    assert model.pooler is None
    assert not model.training
    assert not any(one.requires_grad for one in model.parameters())

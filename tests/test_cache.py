from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sdcorr
from sdcorr.backbones._freeu import FreeU
from sdcorr.backbones.constant import Constant
from sdcorr.backbones.dense_sift import DenseSift
from sdcorr.backbones.dinov2 import Dinov2
from sdcorr.backbones.sift import Sift
from sdcorr.backbones.stable_diffusion import StableDiffusion
from sdcorr.cache import CachedBackbone, DiskStore, Maps
from sdcorr.errors import BadOutput
from sdcorr.fusion import Group, MapUse
from sdcorr.geometry import Grid, Size
from sdcorr.pipeline import Pipeline
from sdcorr.recipe import Recipe
from sdcorr.recipes import find_recipe
from sdcorr.runtime import LIBRARIES, Runtime
from sdcorr.types import Backbone, BackboneConfig, FeatureMap, Image
from tests.tiny import shrink

SMALL = Sift(size=32)
GRIDS = {  # not in alphabetical order, on grids of their own
    "zebra": Grid((2, 3), (4.5, 7.1), (0.0, -3.25), Size(14, 13)),
    "ant": Grid((1, 2), (1 / 3, 14.0), (-2.0, 0.1), Size(14, 13)),
}
RECIPES = ("sift", "dinov2-b", "sd-dino")


# -- helpers -----------------------------------------------------------------------------------


@dataclass
class Counting:
    """A backbone that remembers which photos it computed."""

    inner: Backbone
    seen: list[Image] = field(default_factory=list)

    @property
    def channels(self) -> Any:
        return self.inner.channels

    @property
    def revisions(self) -> Any:
        return self.inner.revisions

    def extract(self, images: Sequence[Image]) -> tuple[Maps, ...]:
        self.seen += images
        return self.inner.extract(images)


@dataclass(frozen=True)
class Weighted:
    """Stands for a backbone that loaded a revision of some weights; computes nothing."""

    revision: str = "abc"

    @property
    def channels(self) -> dict[str, int]:
        return {}

    @property
    def revisions(self) -> dict[str, str]:
        return {"some/model": self.revision}

    def extract(self, images: Sequence[Image]) -> tuple[Maps, ...]:
        raise NotImplementedError


def remembering(folder: Path | DiskStore) -> tuple[CachedBackbone, list[Image]]:
    """Small SIFT on a store, and the photos that it computes."""
    store = folder if isinstance(folder, DiskStore) else DiskStore(folder)
    inner = Counting(SMALL.build(Runtime()))
    return CachedBackbone(inner, SMALL, Runtime(), store), inner.seen


def watch(pipeline: Pipeline) -> list[Image]:
    """The photos that its backbones compute from now on."""
    seen: list[Image] = []
    for name, cached in pipeline.backbones.items():
        inner = Counting(cached.inner, seen)
        pipeline.backbones[name] = dataclasses.replace(cached, inner=inner)
    return seen


def noise(seed: int, height: int = 20, width: int = 31) -> Image:
    generator = np.random.default_rng(seed)
    return Image(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def maps_of(seed: int, channels: int = 2) -> Maps:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: FeatureMap(name, torch.randn(channels, *grid.shape, generator=generator), grid)
        for name, grid in GRIDS.items()
    }


def are_same(found: Maps | None, expected: Maps) -> bool:
    """To the bit, and in the same order."""
    return (
        found is not None
        and list(found) == list(expected)
        and all(found[name].name == one.name for name, one in expected.items())
        and all(found[name].grid == one.grid for name, one in expected.items())
        and all(torch.equal(found[name].values, one.values) for name, one in expected.items())
    )


def key_of(name: object) -> str:
    """A key as ``CachedBackbone`` makes them."""
    return hashlib.sha256(str(name).encode()).hexdigest()


def file_of(store: DiskStore, name: object) -> Path:
    return store.folder / f"{key_of(name)}.npz"


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def key(
    config: BackboneConfig = SMALL,
    image: Image | None = None,
    runtime: Runtime | None = None,
    revision: str = "abc",
) -> str:
    backbone = CachedBackbone(
        Weighted(revision), config, runtime or Runtime(), DiskStore(Path("nowhere"))
    )
    return backbone.key(image or noise(0))


@pytest.fixture(scope="module")
def recipes(dinov2_folder: Path, sd_folder: Path) -> dict[str, Recipe]:
    places = {"dinov2": str(dinov2_folder), "stable_diffusion": str(sd_folder)}
    small = {name: shrink(find_recipe(name)) for name in RECIPES}
    small["sift"] = Recipe("sift", (Group("sift", Sift(size=64), (MapUse("rootsift"),)),))
    return {
        name: one.with_models({key: places[key] for key in one.backbones if key in places})
        for name, one in small.items()
    }


def load(recipe: Recipe, cache: str | Path | DiskStore | None) -> Pipeline:
    return sdcorr.load(recipe, device="cpu", dtype="float32", cache=cache)


# -- a pipeline that remembers -----------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_a_second_pipeline_computes_nothing_and_finds_the_same(
    recipes, photo, other_photo, tmp_path, name
):
    points = [[120, 80], [40.5, 200.25]]
    encodings, matches, counts = [], [], []
    for cache in (None, tmp_path, tmp_path):
        model = load(recipes[name], cache)
        seen = watch(model) if cache else []
        pair = model.encode(photo), model.encode(other_photo)
        encodings.append(pair)
        matches.append(model.match(*pair, points))
        counts.append(len(seen))
    assert counts == [0, 2 * len(recipes[name].backbones), 0]
    for source, target in encodings[1:]:
        assert are_same(source.maps, encodings[0][0].maps)
        assert are_same(target.maps, encodings[0][1].maps)
    for found in matches[1:]:
        for part in ("source", "target", "score", "margin", "cycle_error", "peak", "matched"):
            assert torch.equal(getattr(found, part), getattr(matches[0], part)), part


@pytest.mark.parametrize("kind", [str, Path, DiskStore])
def test_a_cache_is_a_path_or_a_store(recipes, photo, tmp_path, kind):
    load(recipes["sift"], kind(tmp_path / "maps")).encode(photo)
    assert len(list((tmp_path / "maps").glob("*.npz"))) == 1
    model = load(recipes["sift"], tmp_path / "maps")
    seen = watch(model)
    model.encode(photo)
    assert seen == []


def test_a_store_keeps_its_own_limit(recipes, photo, other_photo, tmp_path):
    model = load(recipes["sift"], DiskStore(tmp_path, limit=1))
    model.encode(photo)
    model.encode(other_photo)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_may_begin_at_home(recipes, photo, tmp_path, monkeypatch):
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    load(recipes["sift"], "~/maps").encode(photo)
    assert len(list((tmp_path / "maps").iterdir())) == 1


def test_nothing_is_made_before_something_is_kept(tmp_path):
    store = DiskStore(tmp_path / "a" / "b")
    assert store.get(key_of("a")) is None
    assert not (tmp_path / "a").exists()
    store.put(key_of("a"), maps_of(0))
    assert are_same(store.get(key_of("a")), maps_of(0))


def test_touched_weights_are_computed_again(recipes, dinov2_folder, photo, tmp_path):
    weights = shutil.copytree(dinov2_folder, tmp_path / "weights") / "model.safetensors"
    recipe = recipes["dinov2-b"].with_models({"dinov2": str(weights.parent)})
    counts = []
    for time in (10**18, 10**18, 2 * 10**18):
        os.utime(weights, ns=(time, time))
        model = load(recipe, tmp_path / "maps")
        seen = watch(model)
        model.encode(photo)
        counts.append(len(seen))
    assert counts == [1, 0, 1]


@pytest.mark.parametrize(
    ("prompt", "computed"), [("a photo of a {category}", 3), ("a photo of a cat", 1)]
)
def test_categories_are_told_apart_where_the_prompt_names_them(
    sd_folder, photo, tmp_path, prompt, computed
):
    config = StableDiffusion(
        model=str(sd_folder), size=64, window=None, prompt=prompt, layers=("up_blocks.1",)
    )
    model = load(Recipe("sd", (Group("sd", config, (MapUse("up_blocks.1"),)),)), tmp_path)
    seen = watch(model)
    maps = {name: model.encode(photo, name).maps for name in ("cat", "dog", None)}
    assert len(seen) == computed
    assert are_same(model.encode(photo, "cat").maps, maps["cat"])
    assert len(seen) == computed
    assert are_same(maps["cat"], maps["dog"]) == (computed == 1)


def test_duplicates_in_one_call_are_computed_once(tmp_path):
    backbone, seen = remembering(tmp_path)
    twin = Image(noise(0).pixels, path=Path("twin.png"))
    first, second, third = backbone.extract([noise(0), noise(1), twin])
    assert [one.pixels.sum() for one in seen] == [noise(0).pixels.sum(), noise(1).pixels.sum()]
    assert are_same(third, first)
    assert not are_same(second, first)


def test_what_is_lacking_is_computed_and_the_order_is_kept(tmp_path):
    backbone, seen = remembering(tmp_path)
    backbone.extract([noise(1)])
    seen.clear()
    found = backbone.extract([noise(0), noise(1), noise(2)])
    assert [one.pixels.sum() for one in seen] == [noise(0).pixels.sum(), noise(2).pixels.sum()]
    for seed, maps in enumerate(found):
        assert are_same(maps, SMALL.build(Runtime()).extract([noise(seed)])[0])


def test_no_photos_no_maps(tmp_path):
    assert remembering(tmp_path)[0].extract([]) == ()


def test_order_and_grids_are_kept(tmp_path):
    store = DiskStore(tmp_path)
    store.put(key_of("a"), maps_of(0))
    found = store.get(key_of("a"))
    assert list(found) == ["zebra", "ant"]
    assert [one.grid for one in found.values()] == list(GRIDS.values())
    assert isinstance(found["ant"].grid.image, Size)
    assert are_same(found, maps_of(0))


def test_maps_that_share_memory_are_kept(tmp_path):
    store, values = DiskStore(tmp_path), torch.randn(4, 2, 3)
    grid = GRIDS["zebra"]
    maps = {"all": FeatureMap("all", values, grid), "some": FeatureMap("some", values[:2], grid)}
    store.put(key_of("a"), maps)
    assert are_same(store.get(key_of("a")), maps)


# -- what makes another key --------------------------------------------------------------------

OTHER: dict[type, dict[str, Any]] = {  # a new field needs a value here
    Sift: {"size": 64, "stride": 4, "diameters": (16.0, 32.0)},
    DenseSift: {
        "size": 64, "stride": 4, "windows": (16.0, 32.0), "places": 2, "orientations": 8,
        "signed": False, "colour": False, "floor": 0.1,
    },
    Dinov2: {
        "model": "facebook/dinov2-large", "revision": "v2", "size": 168, "fit": "stretch",
        "block": 3, "norm": True, "positions": "transformers", "facet": "key", "stride": 7,
    },
    StableDiffusion: {
        "model": "some/other", "revision": "v2", "size": 512, "fit": "stretch", "window": None,
        "overlap": 128, "latent": "sample", "step": 50, "seed": 1, "ensemble": 2, "prompt": "",
        "prompt_without_category": "a photo", "layers": ("up_blocks.1",), "resample": "bicubic",
        "freeu": (FreeU(1280, 1.2, 0.9),),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, item.name) for kind in OTHER for item in dataclasses.fields(kind)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_another_value_of_any_field_is_another_key(kind, name):
    config = kind()
    assert key(dataclasses.replace(config, **{name: OTHER[kind][name]})) != key(config)


def test_another_kind_with_the_same_fields_is_another_key():
    @dataclass(frozen=True)
    class Other(Constant):
        """From outside."""

    assert key(Other()) != key(Constant())


def test_one_changed_pixel_is_another_key():
    changed = noise(0)
    changed.pixels[-1, -1, -1] ^= 1
    assert key(image=changed) != key(image=noise(0))


def test_the_same_bytes_in_another_shape_are_another_key():
    pixels = np.arange(18, dtype=np.uint8)
    wide, tall = (Image(pixels.reshape(*shape, 3)) for shape in ((2, 3), (3, 2)))
    assert key(image=wide) != key(image=tall)


def test_where_a_photo_comes_from_makes_no_other_key():
    pixels = noise(0).pixels
    turned = Image(np.asfortranarray(pixels), path=Path("photo.png"))
    assert key(image=turned) == key(image=noise(0))


@pytest.mark.parametrize(
    "runtime",
    [
        Runtime(dtype=torch.bfloat16),
        Runtime(dtype=torch.float16),
        Runtime(batch=1),
        Runtime(device=torch.device("cuda")),
        Runtime(device=torch.device("mps")),
    ],
    ids=str,
)
def test_another_runtime_is_another_key(runtime):
    assert key(runtime=runtime) != key()


def test_gpus_of_one_machine_share_their_keys():
    first, second = (Runtime(device=torch.device(f"cuda:{index}")) for index in (0, 1))
    assert key(runtime=first) == key(runtime=second)


def test_other_weights_are_another_key():
    assert key(revision="abd") != key(revision="abc")


@pytest.mark.parametrize("library", LIBRARIES)
def test_another_version_of_a_library_is_another_key(monkeypatch, library):
    before = key()
    monkeypatch.setattr("sdcorr.runtime.version", lambda name: "9" if name == library else "8")
    changed = key()
    monkeypatch.setattr("sdcorr.runtime.version", lambda name: "8")
    assert len({before, changed, key()}) == 3


@pytest.mark.parametrize(
    ("config", "differs"),
    [
        (Sift(), False),
        (Dinov2(), False),
        (StableDiffusion(), True),
        (StableDiffusion(prompt="a photo of a cat"), False),
    ],
    ids=["sift", "dinov2", "prompt with category", "prompt without"],
)
def test_a_category_makes_another_key_only_where_a_prompt_names_it(config, differs):
    pixels = noise(0).pixels
    keys = {key(config, Image(pixels, name)) for name in ("cat", "dog", None)}
    assert len(keys) == (3 if differs else 1)


# -- the limit ---------------------------------------------------------------------------------


def kept(store: DiskStore, names: str) -> str:
    return "".join(name for name in names if file_of(store, name).exists())


def room_for(count: int, folder: Path) -> DiskStore:
    """A store with room for so many ``maps_of``, and half of one more."""
    probe = DiskStore(folder / "probe")
    probe.put(key_of("probe"), maps_of(0))
    return DiskStore(folder / "store", limit=int((count + 1 / 2) * bytes_in(probe.folder)))


def put_aged(store: DiskStore, names: str) -> None:
    """Put maps in order, each used a second after the one before."""
    for seconds, name in enumerate(names):
        store.put(key_of(name), maps_of(ord(name)))
        os.utime(file_of(store, name), (seconds, seconds))


def test_the_least_recently_written_goes_first(tmp_path):
    store = room_for(4, tmp_path)
    put_aged(store, "abcd")
    assert kept(store, "abcd") == "abcd"
    store.put(key_of("e"), maps_of(0))
    assert kept(store, "abcde") == "bcde"


def test_what_was_read_is_recent(tmp_path):
    store = room_for(4, tmp_path)
    put_aged(store, "abcd")
    store.get(key_of("a"))
    store.put(key_of("e"), maps_of(0))
    assert kept(store, "abcde") == "acde"


def test_many_small_files_stay_under_the_limit(tmp_path):
    store = room_for(120, tmp_path)  # each less than what may be written between two counts
    most = 0
    for number in range(400):
        store.put(key_of(number), maps_of(number))
        os.utime(file_of(store, number), (number, number))
        most = max(most, bytes_in(store.folder))
    assert most <= store.limit
    kept = [number for number in range(400) if file_of(store, number).exists()]
    assert kept == list(range(400 - len(kept), 400))  # the newest
    assert len(kept) > 110


def test_files_of_any_size_stay_under_the_limit(tmp_path):
    store, sizes = DiskStore(tmp_path, limit=20_000), random.Random(0)
    for number in range(100):
        store.put(key_of(number), maps_of(number, channels=sizes.randrange(1, 300)))
        assert bytes_in(tmp_path) <= store.limit
        assert file_of(store, number).exists()


def test_a_file_larger_than_the_limit_lives_until_the_next(tmp_path):
    store = DiskStore(tmp_path, limit=10)
    for name in ("a", "b"):
        store.put(key_of(name), maps_of(0))
        assert list(tmp_path.iterdir()) == [file_of(store, name)]


def test_files_of_an_earlier_store_count(tmp_path):
    put_aged(room_for(4, tmp_path), "abcd")
    later = room_for(4, tmp_path)
    later.put(key_of("e"), maps_of(0))
    assert kept(later, "abcde") == "bcde"


def test_files_that_the_store_did_not_write_are_never_deleted(tmp_path):
    """Someone gives the folder of a checkpoint as the cache."""
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(1000))
    os.utime(weights, (0, 0))
    store = DiskStore(tmp_path, limit=1000)
    for name in "ab":
        store.put(key_of(name), maps_of(0))
    assert weights.exists()


# -- damage ------------------------------------------------------------------------------------


def flipped(content: bytes, position: int, mask: int = 1) -> bytes:
    changed = bytearray(content)
    changed[position] ^= mask
    return bytes(changed)


DAMAGES = {
    "half": lambda content: content[: len(content) // 2],
    "last byte lost": lambda content: content[:-1],
    "empty": lambda _: b"",
    "garbage": lambda _: bytes(range(256)) * 8,
    "first byte": lambda content: flipped(content, 0),
    "values": lambda content: flipped(content, 2 * len(content) // 3),
    "end": lambda content: flipped(content, -20),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damaged_files_are_computed_again_with_one_warning(tmp_path, damage):
    photos = [noise(0), noise(1), noise(2)]
    backbone, _ = remembering(tmp_path)
    expected = backbone.extract(photos)
    for photo in photos:
        file = tmp_path / f"{backbone.key(photo)}.npz"
        file.write_bytes(damage(file.read_bytes()))
    backbone, seen = remembering(tmp_path)
    with pytest.warns(
        UserWarning, match=r"a cached file cannot be used and is computed again"
    ) as told:
        found = backbone.extract(photos)
    assert len(told) == 1
    assert str(tmp_path) in str(told[0].message)
    assert len(seen) == 3
    assert all(map(are_same, found, expected))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        backbone, seen = remembering(tmp_path)
        assert all(map(are_same, backbone.extract(photos), expected))
    assert seen == []


def test_another_store_warns_again(tmp_path):
    for _ in range(2):
        store = DiskStore(tmp_path)
        for name in "ab":
            store.put(key_of(name), maps_of(0))
            file_of(store, name).write_bytes(b"")
        with pytest.warns(UserWarning, match="computed again") as told:
            assert [store.get(key_of(name)) for name in "ab"] == [None, None]
        assert len(told) == 1


@pytest.mark.parametrize("mask", [0x01, 0x0F])  # 4.5 to 5.5; F32 to I32
def test_no_flipped_byte_gives_other_maps(tmp_path, mask):
    store = DiskStore(tmp_path)
    store.put(key_of("a"), maps_of(0))
    file = file_of(store, "a")
    content = file.read_bytes()
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for position in range(len(content)):
            file.write_bytes(flipped(content, position, mask))
            found = store.get(key_of("a"))
            if found is not None and not are_same(found, maps_of(0)):
                wrong.append(content[max(0, position - 20) : position + 1])
    assert wrong == []


# -- other processes ---------------------------------------------------------------------------


def test_a_file_that_has_vanished_is_computed_again(tmp_path):
    backbone, seen = remembering(tmp_path)
    (expected,) = backbone.extract([noise(0)])
    (file,) = tmp_path.iterdir()
    file.unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert are_same(backbone.extract([noise(0)])[0], expected)
    assert len(seen) == 2
    assert file.exists()


@pytest.mark.parametrize(
    ("owner", "name", "after"),
    [(Path, "read_bytes", False), (Path, "read_bytes", True), (os, "utime", False)],
    ids=["before it is read", "while it is read", "after it was read"],
)
def test_a_file_that_vanishes_while_it_is_read_was_never_there(
    tmp_path, monkeypatch, owner, name, after
):
    store = DiskStore(tmp_path)
    store.put(key_of("a"), maps_of(0))
    real = getattr(owner, name)

    def vanish(*args: Any, **options: Any) -> Any:
        if not after:
            file_of(store, "a").unlink(missing_ok=True)
        found = real(*args, **options)
        if after:
            file_of(store, "a").unlink(missing_ok=True)
        return found

    with warnings.catch_warnings(), monkeypatch.context() as patch:
        warnings.simplefilter("error")
        patch.setattr(owner, name, vanish)
        found = store.get(key_of("a"))
    assert found is None or are_same(found, maps_of(0))


@pytest.mark.parametrize("hook", ["exists", "copymode"])
def test_a_file_that_vanishes_while_it_is_replaced_is_replaced(tmp_path, monkeypatch, hook):
    """Another process wrote the same maps, and a third deletes them meanwhile."""
    store = DiskStore(tmp_path)
    store.put(key_of("a"), maps_of(0))
    file, written = file_of(store, "a"), []

    def gone_after(path: Path, **options: Any) -> bool:
        there = real_exists(path, **options)
        if path == file:
            path.unlink(missing_ok=True)
        return there

    def gone_before(source: Path, *args: Any, **options: Any) -> None:
        Path(source).unlink(missing_ok=True)
        real_copymode(source, *args, **options)

    def save(path: Path, data: bytes) -> None:
        written.append(path.name)
        real_save(path, data)

    real_exists, real_copymode, real_save = Path.exists, shutil.copymode, Path.write_bytes
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", save)
        if hook == "exists":
            patch.setattr(Path, "exists", gone_after)
        else:
            patch.setattr(shutil, "copymode", gone_before)
        store.put(key_of("a"), maps_of(0))
    assert are_same(store.get(key_of("a")), maps_of(0))
    assert written
    assert file.name not in written  # always under another name: a reader must not see a part
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_may_only_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    def refuse(*_args: Any, **_options: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    store = DiskStore(tmp_path)
    store.put(key_of("a"), maps_of(0))
    with warnings.catch_warnings(), monkeypatch.context() as patch:
        warnings.simplefilter("error")
        patch.setattr(os, "utime", refuse)
        assert are_same(store.get(key_of("a")), maps_of(0))


def wait(barrier: Any) -> None:
    barrier.wait(timeout=60)


def hammer(folder: Path, limit: int, seed: int) -> tuple[int, int]:
    """Read and write six maps at random; how often they were there, and how often not."""
    warnings.simplefilter("error")
    store, draw, hits, misses = DiskStore(folder, limit), random.Random(seed), 0, 0
    expected = [maps_of(number) for number in range(6)]
    for _ in range(500):
        number = draw.randrange(6)
        found = store.get(key_of(number))
        if found is None:
            misses += 1
            store.put(key_of(number), expected[number])
        else:
            hits += 1
            assert are_same(found, expected[number])
    return hits, misses


def test_processes_share_a_folder_that_is_too_small_for_them(tmp_path):
    store = room_for(3, tmp_path)
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    with context.Pool(3, initializer=wait, initargs=(barrier,)) as pool:
        counts = pool.starmap(hammer, [(store.folder, store.limit, seed) for seed in range(3)], 1)
    for hits, misses in counts:
        assert hits > 50
        assert misses > 50
    assert bytes_in(store.folder) <= store.limit
    assert all(path.suffix == ".npz" for path in store.folder.iterdir())


# -- disks -------------------------------------------------------------------------------------


def test_a_cache_that_is_a_file_is_refused(recipes, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadOutput, match=r"the cache .*file is a file; give a folder"):
        load(recipes["sift"], tmp_path / "file")


def test_a_folder_that_cannot_be_made_is_told(recipes, photo, tmp_path):
    (tmp_path / "file").write_text("")
    model = load(recipes["sift"], tmp_path / "file" / "maps")
    with pytest.raises(BadOutput, match=r"cannot write the cache .*maps: Not a directory"):
        model.encode(photo)


FILL = """
import resource, sys
from pathlib import Path
from sdcorr.cache import DiskStore
from sdcorr.errors import BadOutput
from tests.test_cache import maps_of
store = DiskStore(Path(sys.argv[1]))
store.put("small", maps_of(0))
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))  # bytes of one file, as a full disk would
try:
    store.put("large", maps_of(0, channels=2000))
except BadOutput as error:
    print(error)
"""


def test_a_full_disk_is_told_and_leaves_nothing_half_written(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FILL, tmp_path], capture_output=True, text=True, check=True
    )
    assert f"cannot write {tmp_path / 'large.npz'}" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["small.npz"]

"""Recipes as JSON and back: every field of every config, by name and by type."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import sys
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sdcorr.backbones._freeu import FreeU
from sdcorr.backbones.cleandift import CleanDift
from sdcorr.backbones.dense_sift import DenseSift
from sdcorr.backbones.dinov2 import Dinov2
from sdcorr.backbones.sift import Sift
from sdcorr.backbones.stable_diffusion import StableDiffusion
from sdcorr.confidence import Calibration
from sdcorr.errors import BadRecipe, SdcorrError, UnknownName
from sdcorr.fields import describe, read
from sdcorr.fusion import Foreground, Group, MapUse
from sdcorr.matchers.hough import Hough
from sdcorr.matchers.mutual import Mutual
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.soft_argmax import SoftArgmax
from sdcorr.plugins import find, names
from sdcorr.recipe import Recipe, read_recipe
from sdcorr.recipes import RECIPES
from sdcorr.types import BackboneConfig

Keys = tuple[str | int, ...]
Json = dict[str, Any]

SIFT = Group("sift", Sift(), (MapUse("rootsift"),))
CALIBRATION = Calibration(-1.0, 2.0, 1.5, 0.5, -0.75, 0.1, "box", "three pairs")
OWN = Recipe(
    "own",
    (SIFT, Group("dense", DenseSift(), (MapUse("gradients", standardize=True),))),
    matcher=Mutual(Nearest()),
    by_confidence=True,
    flip=True,
    calibration=CALIBRATION,
)
CHECKED = RECIPES | {"own": OWN}  # with what no recipe uses


def described(recipe: Recipe | str) -> Json:
    """As it comes out of a file."""
    recipe = CHECKED[recipe] if isinstance(recipe, str) else recipe
    return json.loads(json.dumps(recipe.describe()))


def with_value(document: Json, keys: Keys, value: object) -> Json:
    changed = copy.deepcopy(document)
    inner: Any = changed
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return changed


def without(document: Json, keys: Keys) -> Json:
    changed = copy.deepcopy(document)
    inner: Any = changed
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    return changed


@dataclass(frozen=True)
class Place:
    """A field of a dataclass within a recipe."""

    recipe: str
    keys: Keys
    owner: type
    field: dataclasses.Field[Any]

    @property
    def path(self) -> str:
        """As messages name it."""
        return path_of(self.keys)

    @property
    def required(self) -> bool:
        return self.field.default is self.field.default_factory is dataclasses.MISSING


def path_of(keys: Keys) -> str:
    return "recipe" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)


def fields_of(recipe: str, value: Any, keys: Keys = ()) -> Iterator[Place]:
    for field in dataclasses.fields(value):
        inner, here = getattr(value, field.name), (*keys, field.name)
        yield Place(recipe, here, type(value), field)
        items = enumerate(inner) if isinstance(inner, tuple) else [(None, inner)]
        for index, item in items:
            if dataclasses.is_dataclass(item):
                yield from fields_of(recipe, item, here if index is None else (*here, index))


def every_place() -> dict[str, Place]:
    """Each field of each class that a recipe is made of, once."""
    found: dict[str, Place] = {}
    for name, recipe in CHECKED.items():
        for place in fields_of(name, recipe):
            found.setdefault(f"{place.owner.__name__}.{place.field.name}", place)
    return found


PLACES = every_place()

LIST = (5, "word", {"a": 1}, None, True)  # no lists
WRONG: dict[str, tuple[object, ...]] = {
    "str": (5, 1.5, None, True, ["a"], {"a": "b"}),
    "str | None": (5, 1.5, False, ["a"], {"a": "b"}),
    "int": ("5", 5.5, 5.0, None, True, False, [5], {"a": 5}),
    "int | None": ("5", 5.5, 5.0, True, False, [5], {"a": 5}),
    "float": ("1.5", None, True, False, [1.5], {"a": 1.5}),
    "bool": ("true", 0, 1, None, [True], {"a": True}),
    "tuple[str, ...]": (*LIST, [5], ["a", None], [["a"]], [True]),
    "tuple[int, ...]": (*LIST, ["5"], [1, 2.5], [None], [[1]], [True]),
    "tuple[float, ...]": (*LIST, ["5"], [1.0, None], [[1.5]], [True]),
    "tuple[FreeU, ...]": (*LIST, [5], ["a"], [None], [[]], [True]),
    "tuple[MapUse, ...]": (*LIST, [5], ["token"], [None], [[]], [True]),
    "tuple[Group, ...]": (*LIST, [5], ["dinov2"], [None], [[]], [True]),
    "Calibration | None": (5, "box", True, [0.5]),
    "Foreground | None": (5, "vit/saliency", True, ["vit/saliency", 0.5]),
    "BackboneConfig": (5, "dinov2", None, True, ["dinov2"], {}, {"kind": None}, {"kind": 5}),
    "Matcher": (5, "nearest", None, True, ["nearest"], {}, {"kind": None}, {"kind": ["nearest"]}),
}
CHOICES = (5, None, True, "", "Letterbox", ["letterbox"], {"letterbox": 1})  # none of a Literal


def is_choice(annotation: str) -> bool:
    """Threshold is a Literal with a name."""
    return annotation.startswith("Literal[") or annotation == "Threshold"


def wrong_values(annotation: str) -> tuple[object, ...]:
    return CHOICES if is_choice(annotation) else WRONG[annotation]


# There and back


@pytest.mark.parametrize("name", CHECKED)
def test_described_and_read_a_recipe_is_the_same(name):
    recipe = read_recipe(described(name))
    assert recipe == CHECKED[name]
    assert hash(recipe) == hash(CHECKED[name])
    assert described(recipe) == described(name)


def test_every_plugin_is_checked_here():
    """A backbone or matcher that is in none of the recipes would escape the tests below."""
    kinds = {type(one) for recipe in CHECKED.values() for one in recipe.backbones.values()}
    kinds |= {type(recipe.matcher) for recipe in CHECKED.values()}
    assert kinds == {find(folder, name) for folder in ("backbones", "matchers") for name in
                     names(folder)}  # fmt: skip


def test_what_is_left_out_has_its_default():
    shortest = {
        "name": "mine",
        "groups": [
            {"name": "a", "backbone": {"kind": "sift"}, "maps": [{"name": "rootsift"}]},
        ],
    }
    recipe = read_recipe(shortest)
    assert recipe == Recipe("mine", (Group("a", Sift(), (MapUse("rootsift"),)),))
    assert recipe.matcher == Nearest()


@pytest.mark.parametrize("name", PLACES)
def test_a_field_that_has_a_default_may_be_left_out(name):
    place = PLACES[name]
    document = without(described(place.recipe), place.keys)
    if place.required:
        outer = path_of(place.keys[:-1])
        with pytest.raises(BadRecipe, match=rf"^{_literal(outer)} lacks the field "
                           rf"{place.field.name}$"):  # fmt: skip
            read_recipe(document)
        return
    assert value_at(document, place.keys) == place.field.default


def value_at(document: Json, keys: Keys) -> Any:
    """The field as it is read; of a backbone without the group, whose maps may depend on it."""
    if keys[:1] == ("groups",) and keys[2:3] == ("backbone",):
        described_backbone = document["groups"][keys[1]]["backbone"]
        inner, keys = read(BackboneConfig, described_backbone, "backbone", False), keys[3:]
    else:
        inner = read_recipe(document)
    for key in keys:
        inner = inner[key] if isinstance(key, int) else getattr(inner, key)
    return inner


def _literal(words: str) -> str:
    return words.replace("[", r"\[").replace("]", r"\]").replace(".", r"\.")


# Wrong types and names


@pytest.mark.parametrize("name", PLACES)
def test_a_wrong_type_is_refused_with_the_path_of_the_field(name):
    place = PLACES[name]
    for value in wrong_values(str(place.field.type)):
        document = with_value(described(place.recipe), place.keys, value)
        with pytest.raises((BadRecipe, UnknownName)) as caught:
            read_recipe(document)
        assert str(caught.value).startswith(place.path), value


@pytest.mark.parametrize("name", PLACES)
def test_a_misspelt_field_is_told_what_was_meant(name):
    place = PLACES[name]
    document = described(place.recipe)
    outer, field = place.keys[:-1], place.field.name
    kept = with_value(document, (*outer, f"{field}_"), 1)
    message = f"^no field of {_literal(path_of(outer))} called '{field}_'; did you mean '{field}'"
    with pytest.raises(UnknownName, match=message):
        read_recipe(kept)


@pytest.mark.parametrize(
    ("folder", "kind"), [(folder, kind) for folder in ("backbones", "matchers") for kind in
                         names(folder)]
)  # fmt: skip
def test_a_misspelt_kind_is_told_what_was_meant(folder, kind):
    keys: Keys = ("matcher",) if folder == "matchers" else ("groups", 0, "backbone")
    wrong = f"{kind[0]}{kind[2:]}_"
    document = with_value(described("sift"), keys, {"kind": wrong})
    message = f"^{_literal(path_of(keys))}: no {folder[:-1]} called '{wrong}'; did you mean '{kind}"
    with pytest.raises(BadRecipe, match=message):
        read_recipe(document)


def test_a_plugin_of_the_other_folder_is_unknown():
    with pytest.raises(BadRecipe, match=r"^recipe\.matcher: no matcher called 'sift'"):
        read_recipe(with_value(described("sift"), ("matcher",), {"kind": "sift"}))
    backbone: Keys = ("groups", 0, "backbone")
    with pytest.raises(BadRecipe, match=r"^recipe\.groups\[0\]\.backbone: no backbone called 'n"):
        read_recipe(with_value(described("sift"), backbone, {"kind": "nearest"}))


@pytest.mark.parametrize(
    "value", [None, 5, "sift", True, [], [{}], 1.5], ids=lambda value: repr(value)
)
def test_what_is_no_object_is_no_recipe(value):
    with pytest.raises(BadRecipe, match=r"^recipe must be an object of fields, got "):
        read_recipe(value)


@pytest.mark.parametrize(
    "name", [name for name, one in PLACES.items() if is_choice(str(one.field.type))]
)
def test_each_choice_of_a_literal_is_taken(name):
    place = PLACES[name]
    choices = typing.get_args(typing.get_type_hints(place.owner)[place.field.name])
    assert len(choices) > 1
    for choice in choices:
        document = with_value(described(place.recipe), place.keys, choice)
        assert value_at(document, place.keys) == choice


def test_a_literal_lists_its_choices():
    document = with_value(described("dinov2-b"), ("groups", 0, "backbone", "facet"), "keys")
    message = r"facet must be one of token, key, query, value, got 'keys'$"
    with pytest.raises(BadRecipe, match=message):
        read_recipe(document)


NUMBERS = {
    ("sift", ("groups", 0, "weight")): 2,
    ("sift", ("groups", 0, "backbone", "diameters")): [16, 32],
    ("dino-v1", ("foreground", "above")): 0,
    ("geoaware", ("matcher", "temperature")): 1,
    ("geoaware", ("groups", 0, "backbone", "freeu", 0, "backbone")): 1,
    ("cleandift-sd21", ("groups", 0, "backbone", "step")): 100,
    ("sift-hough", ("groups", 0, "backbone", "windows")): [36, 72],
    ("sift-hough", ("groups", 0, "backbone", "floor")): 1,
    ("sift-hough", ("matcher", "near")): 6,
    ("sift-hough", ("matcher", "scales")): [1, 2],
    ("own", ("matcher", "within")): 1,
    ("own", ("calibration", "bias")): -2,
}


@pytest.mark.parametrize(("name", "keys"), NUMBERS, ids=str)
def test_a_whole_number_is_a_number(name, keys):
    value = NUMBERS[name, keys]
    floats = [float(one) for one in value] if isinstance(value, list) else float(value)
    whole, decimal = (
        read_recipe(with_value(described(name), keys, one)) for one in (value, floats)
    )
    assert whole == decimal
    assert hash(whole) == hash(decimal)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("name", "keys"), NUMBERS, ids=str)
def test_a_number_is_finite(name, keys, number):
    """Results record the recipe as JSON, which has neither NaN nor infinity."""
    value = [number] if isinstance(NUMBERS[name, keys], list) else number
    with pytest.raises(BadRecipe):
        read_recipe(with_value(described(name), keys, value))


def test_null_is_none_where_it_is_allowed():
    base = described("sd-dino")
    for keys, value in (
        (("calibration",), None),
        (("groups", 0, "backbone", "window"), None),
        (("groups", 0, "backbone", "prompt_without_category"), None),
        (("groups", 0, "backbone", "revision"), "main"),
        (("groups", 0, "maps", 0, "pca"), None),
        (("groups", 1, "backbone", "stride"), None),
        (("foreground",), None),
    ):
        document = with_value(base, keys, value)
        assert described(read_recipe(document)) == document


def test_lists_become_tuples_and_objects_dataclasses():
    recipe = read_recipe(described("geoaware"))
    assert isinstance(recipe.groups, tuple)
    assert isinstance(recipe.groups[0].maps, tuple)
    assert isinstance(recipe.groups[0].maps[2].upsample, tuple)
    config = recipe.groups[0].backbone
    assert isinstance(config, StableDiffusion)
    assert config.freeu == (FreeU(1280, 1.2, 0.9), FreeU(640, 1.4, 0.2))
    assert isinstance(config.layers, tuple)
    assert read_recipe(described("dino-v1")).foreground == Foreground("vit/saliency", 0.05)
    own = read_recipe(described("own"))
    assert own.calibration == CALIBRATION
    assert own.matcher == Mutual(Nearest(), 0.05)


@pytest.mark.parametrize(
    ("name", "keys", "value", "message"),
    [
        ("sift", ("groups", 0, "backbone", "size"), 0, "sift: size, stride and diameters must be"),
        ("sd15", ("groups", 0, "backbone", "size"), 500, "size must be a multiple of 64 px, got 5"),
        ("sd15", ("groups", 0, "backbone", "prompt"), "a {photo}", "may name {category} only"),
        ("geoaware", ("groups", 0, "backbone", "freeu", 1, "channels"), 1280, "freeu must name"),
        ("geoaware", ("matcher", "window"), 4, "window must be odd and positive, got 4"),
        ("dino-v1", ("foreground", "map"), "vit/salience", "did you mean 'vit/saliency'"),
        ("sift", ("groups", 0, "maps", 0, "name"), "sift", "no map of sift called 'sift'"),
        ("sift", ("groups", 0, "weight"), 0, "group 'sift': weight must be positive: 0"),
        ("sift", ("groups",), [], "expected groups with names of their own"),
        ("sift", ("by_confidence",), True, "by_confidence weighs groups, and there is one"),
        ("sift-hough", ("groups", 0, "backbone", "stride"), 0, "dense_sift: expected stride above"),
        ("sift-hough", ("matcher", "cells"), 65, "hough: cells must be 2 to 64 and window odd"),
        ("own", ("matcher", "within"), 0, "mutual: within must be positive, got 0"),
        ("own", ("matcher", "matcher"), {"kind": "hough", "window": 4}, "got 32 and 4"),
        ("own", ("matcher", "matcher"), {"kind": "neares"}, "matcher.matcher: no matcher called"),
        ("sd15", ("groups", 0, "backbone", "seed"), 2**64, "seed"),  # torch takes 64 bits
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused(name, keys, value, message):
    with pytest.raises(SdcorrError, match=message):
        read_recipe(with_value(described(name), keys, value))


@pytest.mark.parametrize(
    "prompt",
    ["{", "}", "{}", "{0}", "{categori}", "{category.title}", "{category.nothing}",
     "{category[0]}", "{category[key]}", "{category!z}", "{category:d}"],
)  # fmt: skip
def test_a_prompt_that_is_no_template_is_refused(prompt):
    document = with_value(described("sd15"), ("groups", 0, "backbone", "prompt"), prompt)
    with pytest.raises(BadRecipe, match="prompt"):
        read_recipe(document)


# Kinds, and code from outside


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path, whose package ``stranger`` leaves a file when it is imported."""
    (tmp_path / "stranger").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for module in [name for name in sys.modules if name.split(".")[0] == "stranger"]:
        del sys.modules[module]


PLUGIN = """
from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

Path({trace!r}).touch()

{before}

@dataclass(frozen=True)
class Strange:
    size: int = 16
    {field}

    @property
    def maps(self):
        return ("m",)

    def weights(self):
        return ()

    def build(self, runtime):
        raise NotImplementedError


PLUGIN = Strange
"""


def write_plugin(folder: Path, field: str = "", before: str = "") -> Path:
    """A plug-in that leaves a file where its code runs: the path of that file."""
    trace = folder / "trace"
    code = PLUGIN.format(trace=str(trace), field=field, before=before)
    (folder / "stranger" / "backbone.py").write_text(code)
    (folder / "stranger" / "__init__.py").write_text(f"open({str(trace)!r}, 'w').close()")
    return trace


def strange(**fields: object) -> Json:
    backbone = {"kind": "stranger.backbone", **fields}
    group = {"name": "a", "backbone": backbone, "maps": [{"name": "m"}]}
    return {"name": "mine", "groups": [group]}


def test_code_from_outside_does_not_run_unless_it_is_allowed(outside):
    trace = write_plugin(outside)
    with pytest.raises(
        BadRecipe,
        match=r"^recipe\.groups\[0\]\.backbone names the module 'stranger\.backbone' .*"
        r"--allow-plugins \(in Python: allow_plugins=True\)$",
    ):
        read_recipe(strange())
    assert not trace.exists()
    assert "stranger" not in sys.modules
    recipe = read_recipe(strange(size=8), allow_plugins=True)
    assert trace.exists()
    assert recipe.groups[0].backbone.size == 8
    assert described(recipe)["groups"][0]["backbone"] == {"kind": "stranger.backbone", "size": 8}
    assert read_recipe(described(recipe), allow_plugins=True) == recipe


def test_a_matcher_from_outside_does_not_run_unless_it_is_allowed(outside):
    trace = write_plugin(outside)
    document = with_value(described("sift"), ("matcher",), {"kind": "stranger.backbone"})
    with pytest.raises(BadRecipe, match=r"^recipe\.matcher names the module 'stranger\.backbone'"):
        read_recipe(document)
    assert not trace.exists()


def test_fields_of_a_plugin_from_outside_are_checked(outside):
    write_plugin(outside)
    with pytest.raises(BadRecipe, match=r"^recipe\.groups\[0\]\.backbone\.size must be a whole"):
        read_recipe(strange(size="8"), allow_plugins=True)
    with pytest.raises(UnknownName, match="did you mean 'size'"):
        read_recipe(strange(sise=8), allow_plugins=True)


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(
    "kind",
    ["../x", "./sift", "..", ".", "a..b", "x/../sift", "os", "os.path", "json.decoder", "builtins",
     "sdcorr", "", " sift", "Sift", "_taps", "__init__", "sift\0", None, 5, True, ["sift"], {}],
    ids=repr,
)  # fmt: skip
def test_strange_kinds_are_refused(kind, allow):
    document = with_value(described("sift"), ("groups", 0, "backbone", "kind"), kind)
    with pytest.raises((BadRecipe, UnknownName)):
        read_recipe(document, allow_plugins=allow)


def test_a_module_of_sdcorr_by_its_dotted_name():
    document = with_value(
        described("sift"), ("groups", 0, "backbone", "kind"), "sdcorr.backbones.sift"
    )
    with pytest.raises(BadRecipe, match=r"names the module 'sdcorr\.backbones\.sift' as"):
        read_recipe(document)
    assert read_recipe(document, allow_plugins=True) == RECIPES["sift"]


@pytest.mark.parametrize("kind", ["sdcorr.backbones._freeu", "sdcorr.recipe", "sdcorr"])
def test_modules_of_sdcorr_that_are_no_plugins(kind):
    document = with_value(described("sift"), ("groups", 0, "backbone"), {"kind": kind})
    with pytest.raises((BadRecipe, UnknownName)):
        read_recipe(document, allow_plugins=True)


def test_a_matcher_is_no_backbone_even_by_its_dotted_name():
    kind = {"kind": "sdcorr.matchers.nearest"}
    document = with_value(described("sift"), ("groups", 0, "backbone"), kind)
    with pytest.raises((BadRecipe, UnknownName)):
        read_recipe(document, allow_plugins=True)


def test_a_plugin_that_is_no_dataclass_is_refused(outside):
    write_plugin(outside)
    (outside / "stranger" / "plain.py").write_text("class Plain:\n    pass\n\nPLUGIN = Plain\n")
    document = strange()
    document["groups"][0]["backbone"] = {"kind": "stranger.plain"}
    with pytest.raises(BadRecipe, match=r"stranger\.plain"):
        read_recipe(document, allow_plugins=True)


@pytest.mark.parametrize(
    ("field", "value", "back"),
    [
        ("more: int | float = 1", 2.5, 2.5),
        ("more: int | str | None = None", "a", "a"),
        ("more: Any = None", 5, 5),
        ("more: dict[str, int] | None = None", None, None),
        ("more: tuple[str, int] = ('a', 1)", ["b", 2], ["b", 2]),
        ("more: tuple[tuple[int, ...], ...] = ()", [[1], [2, 3]], [[1], [2, 3]]),
    ],
)
def test_annotations_of_plugins_from_outside(outside, field, value, back):
    """What cannot be checked is taken as it is; it must not be in the way."""
    write_plugin(outside, field)
    recipe = read_recipe(strange(more=value), allow_plugins=True)
    assert described(recipe)["groups"][0]["backbone"]["more"] == back
    assert read_recipe(described(recipe), allow_plugins=True) == recipe


def test_a_dataclass_within_a_plugin_from_outside_comes_back(outside):
    inner = "@dataclass(frozen=True)\nclass Inner:\n    factor: float = 1.0\n"
    write_plugin(outside, "inner: Inner = Inner(2.0)", before=inner)
    recipe = read_recipe(strange(inner={"factor": 3}), allow_plugins=True)
    assert recipe.groups[0].backbone.inner.factor == 3
    assert read_recipe(described(recipe), allow_plugins=True) == recipe


def test_a_plugin_that_is_a_module_of_its_own_comes_back(outside):
    """Not in a package, so that its name has no dot: read back, or refused when it is made."""
    write_plugin(outside)
    (outside / "stranger" / "__init__.py").write_text(
        (outside / "stranger" / "backbone.py").read_text()
    )
    from stranger import Strange

    try:
        recipe = Recipe("mine", (Group("a", Strange(), (MapUse("m"),)),))
    except SdcorrError:
        return
    assert read_recipe(described(recipe), allow_plugins=True) == recipe


# Large and deep


def test_deep_json_is_refused_in_words():
    """Also at depths that the parser still takes and Python's repr does not."""
    document = json.dumps(described("geoaware"))
    deepest = 100
    for depth in range(100, 1100):
        try:
            json.loads("[" * depth + "]" * depth)
        except RecursionError:
            break
        deepest = depth
    for depth in (10, *range(deepest - 60, deepest + 1)):
        text = document.replace('"channels": 1280', f'"channels": {"[" * depth}{"]" * depth}')
        assert text != document
        try:
            parsed = json.loads(text)
        except RecursionError:
            continue
        with pytest.raises(BadRecipe, match=r"freeu\[0\]\.channels must be a whole number"):
            read_recipe(parsed)


@pytest.mark.parametrize(
    "value", ["x" * 1_000_000, list(range(100_000)), 10**4000], ids=["text", "list", "number"]
)
def test_a_message_does_not_repeat_a_huge_value(value):
    for keys in (("name",), ("matcher",), ("groups", 0, "backbone", "stride"), ("deviations",)):
        if isinstance(value, str) and keys == ("name",):
            continue
        document = with_value(described("sift"), keys, value)
        if isinstance(value, int) and keys[-1] == "stride":
            continue
        with pytest.raises(BadRecipe) as caught:
            read_recipe(document)
        assert str(caught.value).startswith(path_of(keys))
        assert len(str(caught.value)) < 1000


def test_many_groups_are_read():
    document = described("sift")
    groups = [document["groups"][0] | {"name": f"g{index}"} for index in range(2000)]
    assert len(read_recipe(document | {"groups": groups}).groups) == 2000


# Made in Python


IN_PYTHON: dict[str, Callable[[], object]] = {
    "recipe.name": lambda: Recipe(5, (SIFT,)),
    "recipe.about": lambda: Recipe("mine", (SIFT,), about=None),
    "recipe.groups": lambda: Recipe("mine", SIFT),
    "recipe.groups[0]": lambda: Recipe("mine", ("sift",)),
    "recipe.groups[1]": lambda: Recipe("mine", (SIFT, Sift())),
    "recipe.groups[0].name": lambda: of_group(name=5),
    "recipe.groups[0].weight": lambda: of_group(weight="1"),
    "recipe.groups[0].unit": lambda: of_group(unit=1),
    "recipe.groups[0].backbone": lambda: of_group(backbone=Sift),
    "recipe.groups[1].backbone": lambda: Recipe("mine", (SIFT, replace(SIFT, backbone="sift"))),
    "recipe.groups[0].maps": lambda: of_group(maps="rootsift"),
    "recipe.groups[0].maps[0]": lambda: of_group(maps=("rootsift",)),
    "recipe.groups[0].maps[0].pca": lambda: of_group(maps=(MapUse("rootsift", pca=8.0),)),
    "recipe.groups[0].maps[0].upsample": lambda: of_group(maps=(MapUse("rootsift", upsample=2),)),
    "recipe.groups[0].maps[0].standardize": lambda: of_group(
        maps=(MapUse("rootsift", standardize=1),)
    ),
    "recipe.matcher": lambda: Recipe("mine", (SIFT,), matcher=None),
    "recipe.by_confidence": lambda: Recipe(
        "mine", (SIFT, replace(SIFT, name="b")), by_confidence=1
    ),
    "recipe.flip": lambda: Recipe("mine", (SIFT,), flip="yes"),
    "recipe.calibration": lambda: Recipe("mine", (SIFT,), calibration=0.5),
    ".alpha": lambda: Recipe("mine", (SIFT,), calibration=replace(CALIBRATION, alpha="0.1")),
    "recipe.foreground": lambda: Recipe("mine", (SIFT,), foreground="sift/rootsift"),
    "recipe.foreground.above": lambda: Recipe(
        "mine", (SIFT,), foreground=Foreground("sift/rootsift", "0.5")
    ),
    "recipe.deviations": lambda: Recipe("mine", (SIFT,), deviations="none"),
    "recipe.deviations[0]": lambda: Recipe("mine", (SIFT,), deviations=(1,)),
    ".size": lambda: of_group(backbone=Dinov2(size="840")),
    ".block": lambda: of_group(backbone=Dinov2(block=True)),
    ".seed": lambda: of_group(backbone=StableDiffusion(seed=1.5)),
    ".freeu[0].channels": lambda: of_group(
        backbone=StableDiffusion(freeu=(FreeU("1280", 1.2, 0.9),))
    ),
    ".mutual": lambda: Recipe("mine", (SIFT,), matcher=Nearest(mutual=1)),
    ".matcher": lambda: Recipe("mine", (SIFT,), matcher=Mutual("nearest")),
    ".within": lambda: Recipe("mine", (SIFT,), matcher=Mutual(Nearest(), "0.05")),
    ".scales": lambda: Recipe("mine", (SIFT,), matcher=Hough(scales=1.0)),
    ".windows[1]": lambda: of_group(backbone=DenseSift(windows=(36.0, "72"))),
    ".window": lambda: Recipe("mine", (SIFT,), matcher=SoftArgmax(window=5.0)),
    ".temperature": lambda: Recipe("mine", (SIFT,), matcher=SoftArgmax(temperature="0.02")),
}


def of_group(**changes: Any) -> Recipe:
    return Recipe("mine", (replace(SIFT, **changes),))


@pytest.mark.parametrize("path", IN_PYTHON)
def test_a_recipe_made_in_python_refuses_wrong_types(path):
    """The config does, or else the recipe."""
    start = "^" if path.startswith("recipe") else ""
    with pytest.raises(BadRecipe, match=f"{start}{_literal(path)} must be "):
        IN_PYTHON[path]()


@pytest.mark.parametrize(
    "changes",
    [
        {"matcher": {"kind": "nearest"}},
        {"foreground": {"map": "sift/rootsift", "above": 0.5}},
        {"groups": (RECIPES["sift"].describe()["groups"][0],)},
        {"groups": (replace(SIFT, backbone={"kind": "sift"}),)},
        {"groups": (replace(SIFT, maps=({"name": "rootsift"},)),)},
        {"calibration": dataclasses.asdict(CALIBRATION)},
        {"matcher": Sift()},
        {"groups": (replace(SIFT, backbone=Nearest()),)},
        {"groups": (replace(SIFT, backbone=MapUse("rootsift")),)},
    ],
    ids=["matcher as a dict", "foreground as a dict", "group as a dict", "backbone as a dict",
         "map as a dict", "calibration as a dict", "backbone as matcher",
         "matcher as backbone", "map use as backbone"],
)  # fmt: skip
def test_a_recipe_made_in_python_refuses_what_it_could_not_use(changes):
    """JSON's dicts are read by ``read_recipe``; in a Recipe they fail later, or do nothing."""
    with pytest.raises(SdcorrError):
        Recipe(**({"name": "mine", "groups": (SIFT,)} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": [SIFT]},
        {"groups": (replace(SIFT, maps=[MapUse("rootsift")]),)},
        {"deviations": ["none"]},
    ],
    ids=["groups", "maps", "deviations"],
)
def test_a_list_made_in_python_is_refused_or_made_a_tuple(changes):
    """A recipe is hashable, and equal to what its description reads as."""
    try:
        recipe = Recipe(**({"name": "mine", "groups": (SIFT,)} | changes))
    except BadRecipe:
        return
    assert isinstance(hash(recipe), int)
    assert read_recipe(described(recipe)) == recipe


REQUIRED: dict[type, dict[str, object]] = {Mutual: {"matcher": Nearest()}}


@pytest.mark.parametrize(
    "kind",
    [Sift, DenseSift, Dinov2, StableDiffusion, CleanDift, SoftArgmax, Nearest, Hough, Mutual],
)
def test_a_config_made_in_python_with_a_wrong_type_is_told_in_words(kind):
    """By itself, or else by the recipe; not by a TypeError from its arithmetic."""
    crashes = []
    for field in dataclasses.fields(kind):
        for value in wrong_values(str(field.type)):
            try:
                Recipe(**_carrying(kind(**REQUIRED.get(kind, {}) | {field.name: value})))
                crashes.append(f"{field.name}={value!r} was accepted")
            except SdcorrError:
                continue
            except Exception as error:
                crashes.append(f"{field.name}={value!r}: {type(error).__name__}: {error}")
    assert crashes == []


def _carrying(config: Any) -> dict[str, Any]:
    if isinstance(config, Nearest | SoftArgmax | Hough | Mutual):
        return {"name": "mine", "groups": (SIFT,), "matcher": config}
    (name, *_) = type(config)().maps
    return {"name": "mine", "groups": (Group("a", config, (MapUse(name),)),)}


def test_a_description_is_made_of_lists_and_dicts_with_kinds_of_plugins_alone():
    document = describe(Recipe("mine", (SIFT,), deviations=("a", "b")))
    assert document["deviations"] == ["a", "b"]
    assert document["groups"][0] == {
        "name": "sift",
        "backbone": {"kind": "sift", "size": 480, "stride": 8, "diameters": [16.0, 32.0, 64.0]},
        "maps": [
            {
                "name": "rootsift", "pca": None, "upsample": [], "context": False,
                "standardize": False,
            },
        ],
        "weight": 1.0,
        "unit": True,
    }  # fmt: skip
    assert document["matcher"]["kind"] == "nearest"
    assert document["by_confidence"] is document["flip"] is False
    assert document["calibration"] is None
    assert document == json.loads(json.dumps(document))


def test_a_matcher_within_a_matcher_has_a_kind_and_a_calibration_none():
    document = describe(OWN)
    inner = {"kind": "nearest"} | dataclasses.asdict(Nearest())
    assert document["matcher"] == {"kind": "mutual", "matcher": inner, "within": 0.05}
    assert document["calibration"] == dataclasses.asdict(CALIBRATION)
    assert document["by_confidence"] is document["flip"] is True

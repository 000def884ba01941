"""What defines a correspondence, in one frozen value; as JSON, and back."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sdcorr.confidence import Calibration
from sdcorr.errors import BadRecipe, UnknownName
from sdcorr.fields import check, describe, read, reads_category
from sdcorr.fusion import Foreground, Group
from sdcorr.matchers.nearest import Nearest
from sdcorr.matchers.pixel import Pixel
from sdcorr.types import BackboneConfig, Matcher, Weights

NEAREST = Nearest()
_WHAT_MATCHES = ("groups", "matcher", "foreground", "by_confidence", "flip")


@dataclass(frozen=True)
class Recipe:
    """All that defines a correspondence, and nothing about the machine that computes it.

    Args:
        name: how it is called.
        groups: feature maps and how they are fused, one group per backbone.
        matcher: how a point is found.
        foreground: which cells may be matched; None is all.
        by_confidence: weigh the groups at each point by how peaked their similarity is; else their
            weights are the same everywhere.
        flip: average the similarities of the source photo and of its mirror image.
        calibration: gives matches a confidence; None leaves them without, and so does one that
            was fitted to another recipe.
        about: one line on what it is.
        paper: where it was published, or measured.
        deviations: each way in which it differs from the publication, one line each.
        memory: peak memory where it was measured.

    Raises:
        BadRecipe: a field is of another type, or none of its choices; no groups, two of one name,
            one without maps, a weight or PCA that is not positive, ``by_confidence`` of one group.
        UnknownName: a group uses a map that its backbone does not make.
    """

    name: str
    groups: tuple[Group, ...]
    matcher: Matcher = NEAREST
    foreground: Foreground | None = None
    by_confidence: bool = False
    flip: bool = False
    calibration: Calibration | None = None
    about: str = ""
    paper: str = ""
    deviations: tuple[str, ...] = ()
    memory: str = ""

    def __post_init__(self) -> None:
        check(self)
        if not self.groups or len(self.backbones) < len(self.groups):
            raise BadRecipe(f"recipe {self.name!r}: expected groups with names of their own")
        if self.by_confidence and len(self.groups) == 1:
            raise BadRecipe(f"recipe {self.name!r}: by_confidence weighs groups, and there is one")
        if isinstance(self.matcher, Pixel) and (self.flip or self.by_confidence):
            raise BadRecipe(
                f"recipe {self.name!r}: pixel reads maps between their cells, which similarities "
                "averaged by flip or by_confidence do not have; use another matcher"
            )
        for group in self.groups:
            _check_group(group, alone=len(self.groups) == 1)
        every = [f"{group.name}/{name}" for group in self.groups for name in group.backbone.maps]
        if self.foreground is not None and self.foreground.map not in every:
            raise UnknownName("map for the foreground", self.foreground.map, every)

    @property
    def backbones(self) -> dict[str, BackboneConfig]:
        """Backbone configs by group name."""
        return {group.name: group.backbone for group in self.groups}

    @property
    def weights(self) -> dict[str, Weights]:
        """What is loaded, by the key that ``with_models`` takes: ``group``, or ``group.field``."""
        return {
            name if needed.field == "model" else f"{name}.{needed.field}": needed
            for name, config in self.backbones.items()
            for needed in config.weights()
        }

    @property
    def uses_category(self) -> bool:
        """Whether a prompt names the category."""
        return any(reads_category(config) for config in self.backbones.values())

    @property
    def digest(self) -> str:
        """Tells apart recipes whose matches may differ; names and words do not count."""
        described = self.describe()
        parts = [described[key] for key in _WHAT_MATCHES]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def own_calibration(self) -> Calibration | None:
        """The calibration, if it was fitted to this recipe and not to what it was changed from."""
        bound = self.calibration is not None and self.calibration.recipe
        return None if bound and bound != self.digest else self.calibration

    def check_category(self, category: str | None) -> None:
        """Refuse a category that no prompt reads, an empty one, or none where one is required."""
        if category is not None and not category.strip():
            raise BadRecipe("the category is empty; name what the photos show, or leave it out")
        if category is not None and not self.uses_category:
            raise BadRecipe(
                f"recipe {self.name!r} has no prompt that names a category; leave --category out"
            )
        for config in self.backbones.values():
            required = getattr(config, "prompt_without_category", "") is None
            if category is None and required and reads_category(config):
                raise BadRecipe(
                    f"recipe {self.name!r} requires a category (prompt_without_category is null): "
                    "name it with --category (in Python: category=...)"
                )

    def with_models(self, places: Mapping[str, str]) -> Recipe:
        """The recipe with other weights: hub ids or local folders by key, see ``weights``."""
        groups = {group.name: group for group in self.groups}
        for key, place in places.items():
            name, _, field = key.partition(".")
            if name in groups and not groups[name].backbone.weights():
                raise BadRecipe(f"{name} loads no weights; leave --model {key}=... out")
            if key not in self.weights:
                raise UnknownName(f"weights in recipe {self.name}", key, self.weights)
            field = field or "model"
            revision = "revision" if field == "model" else f"{field}_revision"
            config: Any = groups[name].backbone
            config = dataclasses.replace(config, **{field: str(place), revision: None})
            groups[name] = dataclasses.replace(groups[name], backbone=config)
        return dataclasses.replace(self, groups=tuple(groups.values()))

    def describe(self) -> dict[str, Any]:
        """Every field, made for JSON; each plug-in with ``kind``, its name. See ``read_recipe``."""
        described: dict[str, Any] = describe(self)
        return described


def read_recipe(described: object, allow_plugins: bool = False) -> Recipe:
    """The recipe that ``Recipe.describe`` described; what is left out has its default.

    Args:
        described: parsed JSON.
        allow_plugins: let ``kind`` name a module outside of sdcorr, which runs its code.

    Raises:
        BadRecipe: a field is missing, of another type, out of range, or contradicts another.
        UnknownName: there is no field, plug-in or map of that name.
    """
    recipe: Recipe = read(Recipe, described, "recipe", allow_plugins)
    return recipe


def _check_group(group: Group, alone: bool) -> None:
    for problem in _problems(group, alone):
        raise BadRecipe(f"group {group.name!r}: {problem}")
    for use in group.maps:
        if use.name not in group.backbone.maps:
            raise UnknownName(f"map of {group.name}", use.name, group.backbone.maps)


def _problems(group: Group, alone: bool) -> Iterator[str]:
    if not group.name or not set(group.name).isdisjoint("./="):
        yield "expected a name without dot, slash and equals sign"
    if not 0 < group.weight < math.inf:
        yield f"weight must be positive: {group.weight}"
    if not group.unit and not alone:
        yield "unit must be true where several groups are joined"
    if not group.maps:
        yield "uses no maps; expected some"
    for use in group.maps:
        if use.pca is not None and use.pca < 1:
            yield f"map {use.name!r}: pca must be at least 1, got {use.pca}"
        if any(factor not in range(1, 65) for factor in use.upsample):
            yield f"map {use.name!r}: upsample must be whole factors, got {use.upsample}"

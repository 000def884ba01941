"""What defines a correspondence, in one frozen value."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sdcorr import plugins
from sdcorr.errors import BadRecipe, UnknownName
from sdcorr.fusion import Group
from sdcorr.matchers.nearest import Nearest
from sdcorr.types import BackboneConfig, Matcher, reads_category

NEAREST = Nearest()


@dataclass(frozen=True)
class Recipe:
    """All that defines a correspondence, and nothing about the machine that computes it.

    Args:
        name: how it is called.
        groups: feature maps and how they are fused, one group per backbone.
        matcher: how a point is found.
        about: one line on what it is.
        paper: where it was published, or measured.
        deviations: each way in which it differs from the publication, one line each.
        memory: peak memory where it was measured.

    Raises:
        BadRecipe: no groups, two of one name, one without maps, a weight or PCA that is not
            positive, or a field that is none of its choices.
        UnknownName: a group uses a map that its backbone does not make.
    """

    name: str
    groups: tuple[Group, ...]
    matcher: Matcher = NEAREST
    about: str = ""
    paper: str = ""
    deviations: tuple[str, ...] = ()
    memory: str = ""

    def __post_init__(self) -> None:
        keys = self.backbones
        if not self.groups or len(keys) < len(self.groups):
            raise BadRecipe(f"recipe {self.name!r}: expected groups with names of their own")
        for group in self.groups:
            if not 0 < group.weight < math.inf:
                raise BadRecipe(f"group {group.name!r}: weight must be positive: {group.weight}")
            if not group.maps:
                raise BadRecipe(f"group {group.name!r} uses no maps; expected some")
            for use in group.maps:
                if use.name not in group.backbone.maps:
                    raise UnknownName(f"map of {group.name}", use.name, group.backbone.maps)
                if use.pca is not None and use.pca < 1:
                    raise BadRecipe(f"map {use.name!r}: pca must be at least 1, got {use.pca}")
                if any(factor not in range(1, 65) for factor in use.upsample):
                    raise BadRecipe(
                        f"map {use.name!r}: upsample must be whole factors, got {use.upsample}"
                    )
        for part in (*keys.values(), self.matcher):
            _check_choices(part)

    @property
    def backbones(self) -> dict[str, BackboneConfig]:
        """Backbone configs by group name."""
        return {group.name: group.backbone for group in self.groups}

    @property
    def needs_weights(self) -> bool:
        """Whether any backbone loads weights."""
        return any(config.weights() is not None for config in self.backbones.values())

    @property
    def uses_category(self) -> bool:
        """Whether a prompt names the category."""
        return any(reads_category(config) for config in self.backbones.values())

    def with_models(self, places: Mapping[str, str]) -> Recipe:
        """The recipe with other weights: hub ids or local folders by group name."""
        groups = {group.name: group for group in self.groups}
        for name, place in places.items():
            if name not in groups:
                raise UnknownName(f"backbone in recipe {self.name}", name, groups)
            config: Any = groups[name].backbone
            if config.weights() is None:
                raise BadRecipe(f"{name} loads no weights; leave --model {name}=... out")
            backbone = dataclasses.replace(config, model=str(place), revision=None)
            groups[name] = dataclasses.replace(groups[name], backbone=backbone)
        return dataclasses.replace(self, groups=tuple(groups.values()))

    def describe(self) -> dict[str, Any]:
        """Every field, made for JSON; each plug-in with ``kind``, its name."""
        described: dict[str, Any] = _describe(self)
        return described


def _check_choices(part: object) -> None:
    """Refuse values that a ``Literal`` field does not list."""
    for name, hint in typing.get_type_hints(type(part)).items():
        choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
        if choices and getattr(part, name) not in choices:
            raise BadRecipe(
                f"{plugins.name_of(part)}: {name} must be one of {', '.join(choices)}, "
                f"got {getattr(part, name)!r}"
            )


def _describe(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kind = type(value).__module__
        is_plugin = not kind.startswith("sdcorr.") or kind.count(".") > 1
        named = {"kind": plugins.name_of(value)} if is_plugin else {}
        rest = {
            item.name: _describe(getattr(value, item.name)) for item in dataclasses.fields(value)
        }
        return named | rest
    if isinstance(value, tuple | list):
        return [_describe(item) for item in value]
    return value

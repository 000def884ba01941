"""Features that tell nothing, for matchers that look at positions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from sdcorr.geometry import whole
from sdcorr.runtime import Runtime
from sdcorr.types import FeatureMap, Image, Weights


@dataclass(frozen=True)
class Constant:
    """One cell over the whole photo, the same for every photo."""

    @property
    def maps(self) -> tuple[str, ...]:
        """One map, ``one``."""
        return ("one",)

    def weights(self) -> tuple[Weights, ...]:
        """None are needed."""
        return ()

    def build(self, runtime: Runtime) -> ConstantBackbone:
        """Nothing to load."""
        return ConstantBackbone(runtime)


@dataclass(frozen=True, eq=False)
class ConstantBackbone:
    """A single 1."""

    runtime: Runtime

    @property
    def channels(self) -> Mapping[str, int]:
        """One."""
        return {"one": 1}

    @property
    def revisions(self) -> Mapping[str, str]:
        """Empty: there are no weights."""
        return {}

    def extract(self, images: Sequence[Image]) -> tuple[dict[str, FeatureMap], ...]:
        """A map ``(1, 1, 1)`` for each photo."""
        one = torch.ones(1, 1, 1, device=self.runtime.device)
        return tuple({"one": FeatureMap("one", one, whole(image.size))} for image in images)


PLUGIN = Constant

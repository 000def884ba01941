"""The errors a user can act on. Each says what was expected, what came, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SdcorrError(Exception):
    """Base of all errors raised on purpose; ``exit_status`` is what the command line returns."""

    exit_status = 2


class BadImage(SdcorrError):
    """A photo that cannot be read, or an array that is no photo."""


class BadPoints(SdcorrError):
    """Points that are malformed, not finite, or outside the photo."""


class BadMask(SdcorrError):
    """A mask of another size than its photo, an empty one, or a box beyond the photo."""


class BadRecipe(SdcorrError):
    """A field of a recipe that contradicts another field, the model, or the request."""


class BadDevice(SdcorrError):
    """A device or dtype that does not exist here."""


class BadOutput(SdcorrError):
    """A file that could not be written; found before the expensive work begins."""


class BadDataset(SdcorrError):
    """A folder that is not the data set, or only part of it, or a selection with no pairs."""


class BadAnnotations(SdcorrError):
    """Annotations that cannot be read, or that contradict themselves or their photos."""


class BadFeatures(SdcorrError):
    """A file of descriptors that cannot be read, is damaged, or holds something else."""


class BadRun(SdcorrError):
    """A run folder that is busy, unfinished, or made in another way than it is now asked for."""


class BadScore(SdcorrError):
    """A threshold or a comparison that these records cannot be scored by."""


class BadDownload(SdcorrError):
    """A file that cannot be fetched, or is not what its address promised."""


class BadLaunch(SdcorrError):
    """Another number of processes, or of devices for them, than was asked for."""


class WeightsNotFound(SdcorrError):
    """Weights that are neither on this machine nor to be had from the hub."""


class BadCheckpoint(SdcorrError):
    """Weights that are here but incomplete, damaged, or of another architecture."""


class MissingLibrary(SdcorrError):
    """A library that is not installed, or cannot be loaded."""


class BadPort(SdcorrError):
    """A port on which nothing can be served: taken, or not allowed."""


class NotFinite(SdcorrError):
    """A feature map that holds NaN or infinity."""

    exit_status = 1


class OutOfMemory(SdcorrError):
    """The device has too little memory for the recipe."""

    exit_status = 1


class UnknownName(SdcorrError):
    """A name that is not among the known ones.

    Example:
        >>> print(UnknownName("recipe", "sd-dina", ["sd-dino", "sift"]))
        no recipe called 'sd-dina'; did you mean 'sd-dino'? known: sd-dino, sift
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = list(known)
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        guess = f" did you mean {close[0]!r}?" if close else ""
        super().__init__(f"no {kind} called {name!r};{guess} known: {', '.join(names) or 'none'}")

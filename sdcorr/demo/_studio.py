"""Photos, models and joined pairs of the page. What takes long is done in one thread of its own."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sdcorr.demo._photos import Photo
from sdcorr.demo._shelf import Shelf
from sdcorr.errors import BadImage, SdcorrError, UnknownName, WeightsNotFound
from sdcorr.export import how_made
from sdcorr.fused import Fused
from sdcorr.models import find_downloaded
from sdcorr.pipeline import Pipeline
from sdcorr.plugins import find, names
from sdcorr.recipe import Recipe
from sdcorr.types import Encoding

PATIENCE = 15.0  # seconds after which a page that no longer asks is taken for closed
LOADED = 2  # recipes whose models stay in memory


@dataclass(frozen=True)
class Pairing:
    """Two photos to be joined, and how.

    Args:
        first: id of a photo.
        second: likewise.
        recipe: its name.
        matcher: name of another matcher than the recipe's own; empty for its own.
        category: what the photos show, for recipes whose prompt names it.
    """

    first: str
    second: str
    recipe: str
    matcher: str = ""
    category: str | None = None


@dataclass(frozen=True, eq=False)
class Joined:
    """Two photos ready to be clicked in.

    Args:
        forth: from the first to the second.
        back: from the second to the first.
        made: recipe, weights and runtime, for JSON; not the model, which may be let go.
    """

    forth: Fused
    back: Fused
    made: Mapping[str, Any]


@dataclass(eq=False)
class Job:
    """A pairing on its way: its step, which one of how many; or what went wrong.

    ``asked`` is when a page last asked for it, in seconds of the monotonic clock.
    """

    pairing: Pairing
    step: str = "waiting for its turn"
    number: int = 0
    steps: int = 4
    asked: float = field(default_factory=time.monotonic)
    error: str | None = None


class _NobodyAsks(Exception):
    """The page that wanted this is closed, or wants something else."""


class Studio:
    """Everything behind the page.

    Args:
        recipes: that may be chosen, by name.
        load: loads one of them.
        memory: bytes of photos, encodings and joined pairs kept.
    """

    def __init__(
        self, recipes: Mapping[str, Recipe], load: Callable[[Recipe], Pipeline], memory: int
    ) -> None:
        self.recipes = recipes
        self.shelf = Shelf(memory)
        self._load = load
        self._models: dict[str, Pipeline] = {}
        self._jobs: dict[Pairing, Job] = {}
        self._queue: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._lock = threading.Lock()
        # a daemon: a model that is at work does not keep the program from ending
        threading.Thread(target=self._work, name="sdcorr demo", daemon=True).start()

    def add(self, photo: Photo) -> Photo:
        """Keep a photo."""
        self.shelf.put(photo.id, photo)
        return photo

    def photo(self, key: str) -> Photo:
        """The photo of that id.

        Raises:
            BadImage: it is no longer kept, or never was.
        """
        photo = self._kept(key)
        if photo is None:
            raise BadImage("that photo was let go to make room, or the demo began anew")
        return photo

    def joined(self, pairing: Pairing) -> Joined | Job:
        """The pair, or how far it has come; the first call begins the work.

        Raises:
            SdcorrError: it cannot be joined; the next call tries again.
        """
        for side, key in (("first", pairing.first), ("second", pairing.second)):
            if self._kept(key) is None:  # also: both are in use
                raise BadImage(
                    f"the {side} photo was let go to make room, or the demo began anew; choose it "
                    "again"
                )
        self._recipe(pairing).check_category(pairing.category)
        with self._lock:
            found = self.shelf.get(pairing)
            if isinstance(found, Joined):
                return found
            self._forget_failures()
            job = self._jobs.get(pairing)
            if job is None:
                self._check_weights(pairing.recipe)
                job = self._jobs[pairing] = Job(pairing, steps=4 + bool(pairing.matcher))
                self._queue.put(job)
            elif job.error is not None:
                del self._jobs[pairing]
                raise SdcorrError(job.error)
            job.asked = time.monotonic()
            return job

    def is_ready(self, name: str) -> bool:
        """Whether the weights of a recipe are on this machine."""
        return all(map(find_downloaded, self.recipes[name].weights.values()))

    def _check_weights(self, name: str) -> None:
        """Refuse a recipe that would have to be downloaded first: a page downloads nothing."""
        if not self.is_ready(name):
            raise WeightsNotFound(
                f"the weights of recipe {name!r} are not on this machine; get them with: sdcorr "
                f"models download {name}"
            )

    def _kept(self, key: str) -> Photo | None:
        photo = self.shelf.get(key)
        return photo if isinstance(photo, Photo) else None

    def _forget_failures(self) -> None:
        """Those of pages that were closed."""
        late = time.monotonic() - 4 * PATIENCE
        for pairing, job in list(self._jobs.items()):
            if job.error is not None and job.asked < late:
                del self._jobs[pairing]

    def _recipe(self, pairing: Pairing) -> Recipe:
        """With the matcher that is asked for.

        Raises:
            UnknownName: there is no such recipe, or no such matcher in sdcorr.
            BadRecipe: the matcher does not go with the recipe.
        """
        if pairing.recipe not in self.recipes:
            raise UnknownName("recipe", pairing.recipe[:60], self.recipes)
        return with_matcher(self.recipes[pairing.recipe], pairing.matcher)

    def _work(self) -> None:
        while True:
            self._do(self._queue.get())

    def _do(self, job: Job) -> None:
        joined = error = None
        try:
            joined = self._join(job)
        except _NobodyAsks:
            pass
        except SdcorrError as known:
            error = str(known)
        except BaseException as unknown:  # the page says so, and the next pair is served
            traceback.print_exc()
            error = f"{type(unknown).__name__}: {unknown} (the terminal shows where)"
        with self._lock:
            job.error = error
            if joined is not None:
                self.shelf.put(job.pairing, joined)
            if error is None:
                del self._jobs[job.pairing]

    def _join(self, job: Job) -> Joined:
        joined = self._with_own_matcher(job)
        if job.pairing.matcher:  # the similarity stays
            self._begin(job, f"preparing {job.pairing.matcher}")
            recipe = self._recipe(job.pairing)
            forth, back = (
                replace(pair, matcher=recipe.matcher, calibration=recipe.own_calibration)
                for pair in (joined.forth, joined.back)
            )
            joined = _warm(Joined(forth, back, {**joined.made, "recipe": recipe.describe()}))
        return joined

    def _with_own_matcher(self, job: Job) -> Joined:
        pairing = replace(job.pairing, matcher="")
        kept: Joined | None = self.shelf.get(pairing)
        if kept is not None:
            return kept
        self._begin(job, f"loading {pairing.recipe}")
        model = self._model(pairing)
        first, second = (
            self._encoding(model, self.photo(key), job) for key in (pairing.first, pairing.second)
        )
        self._begin(job, "joining both photos")
        forth, back = model.fuse(first, second), model.fuse(second, first)
        joined = _warm(Joined(forth, back, how_made(model)))
        self.shelf.put(pairing, joined)
        return joined

    def _begin(self, job: Job, step: str) -> None:
        if time.monotonic() - job.asked > PATIENCE:
            raise _NobodyAsks
        job.step, job.number = step, job.number + 1

    def _model(self, pairing: Pairing) -> Pipeline:
        model = self._models.pop(pairing.recipe, None)
        if model is None:
            while len(self._models) >= LOADED:  # before the next one takes its memory
                del self._models[next(iter(self._models))]
            model = self._load(self.recipes[pairing.recipe])
        self._models[pairing.recipe] = model  # the most recently used is the last
        return model

    def _encoding(self, model: Pipeline, photo: Photo, job: Job) -> Encoding:
        self._begin(job, f"encoding {photo.name}")
        key = (photo.id, job.pairing.recipe, job.pairing.category)
        kept: Encoding | None = self.shelf.get(key)
        if kept is None:
            kept = model.encode(photo.image, job.pairing.category)
            self.shelf.put(key, kept)
        return kept


def _warm(joined: Joined) -> Joined:
    """The pair, and what all of its points share computed: the first click waits for nothing."""
    for pair in (joined.forth, joined.back):
        pair.match([[0, 0]])
    return joined


def matcher_names() -> list[str]:
    """Matchers that may be chosen."""
    return names("matchers")


def with_matcher(recipe: Recipe, name: str) -> Recipe:
    """The recipe with another matcher, of that name and with its defaults; "" is its own.

    A matcher that needs one, as ``mutual``, goes around the recipe's own.

    Raises:
        UnknownName: there is none of that name in sdcorr; modules from outside are not loaded.
        BadRecipe: it does not go with the recipe.
    """
    if not name:
        return recipe
    if name not in matcher_names():
        raise UnknownName("matcher", name[:60], matcher_names())
    kind: Any = find("matchers", name)
    needs = {"matcher": recipe.matcher} if "matcher" in kind.__dataclass_fields__ else {}
    return replace(recipe, matcher=kind(**needs))

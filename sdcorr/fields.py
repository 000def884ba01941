"""Frozen dataclasses as JSON and back, every field checked by name and type, from annotations."""

from __future__ import annotations

import dataclasses
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from string import Formatter
from typing import Any

from sdcorr import plugins
from sdcorr.errors import BadRecipe, UnknownName
from sdcorr.types import BackboneConfig, Matcher

KINDS: dict[type, str] = {BackboneConfig: "backbones", Matcher: "matchers"}
WORDS: dict[type, str] = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false"
}  # fmt: skip
LARGEST = 2**31  # no count, size or seed needs more, and libraries overflow beyond


def reads_category(config: object) -> bool:
    """Whether a prompt names what the photo shows."""
    parts = Formatter().parse(str(getattr(config, "prompt", "")))
    return any(name == "category" for _, name, _, _ in parts)


def describe(value: Any, hint: Any = None) -> Any:
    """A value made for JSON; a plug-in with ``kind``, its name, where its annotation is one."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        fields = {name: describe(item, hints[name]) for name, item in _values(value).items()}
        return {"kind": plugins.name_of(value)} | fields if hint in KINDS else fields
    if isinstance(value, tuple | list):
        of_items = typing.get_args(hint)
        return [describe(item, of_items[0] if of_items else None) for item in value]
    return value


def check(value: Any) -> None:
    """Check every field of a dataclass, and of those in it, against its annotation.

    Raises:
        BadRecipe: a field is of another type, or none of its choices.
    """
    reader = _Reader(parsed=False, allow_plugins=True)
    reader.fields(type(value), _values(value), plugins.name_of(value))


def read(kind: type, parsed: object, where: str, allow_plugins: bool) -> Any:
    """The dataclass that parsed JSON describes; what is left out has its default.

    Args:
        kind: the dataclass.
        parsed: lists become tuples and objects dataclasses; all else must be right as it is.
        where: what to call it in messages.
        allow_plugins: let ``kind`` name a module outside of sdcorr, which runs its code.

    Raises:
        BadRecipe: a value is of another type, or a field is missing.
        UnknownName: there is no field of that name.
    """
    return _Reader(parsed=True, allow_plugins=allow_plugins).value(kind, parsed, where)


@dataclass(frozen=True)
class _Reader:
    """Reads values as annotations ask for, from parsed JSON or from what was made in Python."""

    parsed: bool
    allow_plugins: bool

    def value(self, hint: Any, value: object, where: str) -> Any:
        """The value that an annotation asks for; ``where`` is the path of the field."""
        origin, choices = typing.get_origin(hint), typing.get_args(hint)
        if hint in KINDS:
            return self.plugin(KINDS[hint], value, where)
        if dataclasses.is_dataclass(hint):
            return self.dataclass(hint, value, where)
        if origin is typing.Literal:
            if value not in choices:
                listed = ", ".join(map(str, choices))
                raise BadRecipe(f"{where} must be one of {listed}, got {_short(value)}")
            return value
        if origin in (types.UnionType, typing.Union):
            return self.union(choices, value, where)
        if origin is tuple:
            return self.tuple(choices, value, where)
        return _plain(hint, value, where)

    def union(self, choices: tuple[Any, ...], value: object, where: str) -> Any:
        """As the first of the choices that fits."""
        if value is None and types.NoneType in choices:
            return None
        others = [one for one in choices if one is not types.NoneType]
        for other in others[:-1]:
            try:
                return self.value(other, value, where)
            except (BadRecipe, UnknownName):
                continue  # the last one tells what is wrong
        return self.value(others[-1], value, where)

    def tuple(self, choices: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
        """``tuple[X, ...]``, or one of fixed length."""
        if not isinstance(value, list if self.parsed else tuple):
            kind = "a list" if self.parsed else "a tuple"
            raise BadRecipe(f"{where} must be {kind}, got {_short(value)}")
        hints = [choices[0]] * len(value) if choices[-1] is Ellipsis else choices
        if len(hints) != len(value):
            raise BadRecipe(f"{where} must have {len(hints)} items, got {_short(value)}")
        return tuple(
            self.value(hint, item, f"{where}[{index}]")
            for index, (hint, item) in enumerate(zip(hints, value, strict=True))
        )

    def plugin(self, folder: str, value: object, where: str) -> Any:
        """A config of ``backbones/`` or ``matchers/``, or one from outside."""
        if not self.parsed:
            self._check_plugin(folder, value, where)
            self.fields(type(value), _values(value), where)
            return value
        name = value.get("kind") if isinstance(value, Mapping) else value
        known = ", ".join(plugins.names(folder))
        if not isinstance(value, Mapping) or not isinstance(name, str):
            raise BadRecipe(
                f"{where} must be an object with a kind, one of {known}; got {_short(name)}"
            )
        if "." in name and not self.allow_plugins:
            raise BadRecipe(
                f"{where} names the module {_short(name)} as its kind, which would run its code; "
                "if you trust it, add --allow-plugins (in Python: allow_plugins=True)"
            )
        try:
            kind = plugins.find(folder, name)
        except UnknownName as error:
            raise BadRecipe(f"{where}: {error}") from error
        if not dataclasses.is_dataclass(kind):
            raise BadRecipe(f"{where}: {name}.PLUGIN must be a dataclass, got {_short(kind)}")
        rest = {key: item for key, item in value.items() if key != "kind"}
        made = self.dataclass(kind, rest, where)
        self._check_plugin(folder, made, where)
        return made

    def dataclass(self, kind: Any, value: object, where: str) -> Any:
        """A dataclass of fields; as it is, where it was made in Python."""
        if not self.parsed and isinstance(value, kind):
            self.fields(kind, _values(value), where)
            return value
        if not self.parsed or not isinstance(value, Mapping):
            wanted = "an object of fields" if self.parsed else f"a {kind.__name__}"
            raise BadRecipe(f"{where} must be {wanted}, got {_short(value)}")
        return kind(**self.fields(kind, value, where))

    def fields(self, kind: Any, given: Mapping[str, object], where: str) -> dict[str, Any]:
        """Each given field, read; its name must be one of the dataclass, none may be missing."""
        hints = _hints(kind)
        known = [one.name for one in dataclasses.fields(kind)]
        for name in given:
            if name not in known:
                raise UnknownName(f"field of {where}", name, known)
        for one in dataclasses.fields(kind):
            required = one.default is one.default_factory is dataclasses.MISSING
            if required and one.name not in given:
                raise BadRecipe(f"{where} lacks the field {one.name}")
        return {
            name: self.value(hints[name], value, f"{where}.{name}") for name, value in given.items()
        }

    def _check_plugin(self, folder: str, value: object, where: str) -> None:
        """It must do what one of its kind does."""
        fits = callable(value) if folder == "matchers" else hasattr(value, "build")
        if not fits or isinstance(value, type) or not dataclasses.is_dataclass(value):
            raise BadRecipe(f"{where} must be one of {folder}, got {_short(value)}")


def _plain(hint: Any, value: object, where: str) -> object:
    """True is no number, and a whole number is one; what cannot be checked is taken as it is."""
    fitting = (int, float) if hint is float else typing.get_origin(hint) or hint
    if hint is Any or not isinstance(fitting, type | tuple):
        return value
    wrong = isinstance(value, bool) and hint is not bool
    if wrong or not isinstance(value, fitting):
        raise BadRecipe(f"{where} must be {WORDS.get(hint, hint.__name__)}, got {_short(value)}")
    if isinstance(value, str) and not _is_text(value):
        raise BadRecipe(f"{where} must be text that UTF-8 can hold, got {_short(value)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise BadRecipe(f"{where} must be finite, got {value}")
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise BadRecipe(f"{where} must be below 2**31, got {_short(value)}")
    return value


def _is_text(value: str) -> bool:
    """Whether it can be written to a file or a tokenizer: half a surrogate cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _values(value: Any) -> dict[str, object]:
    return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}


def _short(value: object) -> str:
    """At most some dozens of characters, however large or deep the value is."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 60
    return shortener.repr(value)

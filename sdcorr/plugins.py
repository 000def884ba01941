"""The file system is the registry: ``backbones/foo.py`` is the backbone called ``foo``."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

from sdcorr.errors import BadRecipe, UnknownName

ROOT = Path(__file__).parent


def names(kind: str) -> list[str]:
    """Names of the plug-ins of a kind (``"backbones"``, ``"matchers"``), sorted; none is loaded."""
    found = (module.name for module in pkgutil.iter_modules([str(ROOT / kind)]))
    return sorted(name for name in found if not name.startswith("_"))


def find(kind: str, name: str) -> type:
    """The config class called ``name``; imports that one module and no other.

    Args:
        kind: folder of the package, as in ``"backbones"``.
        name: file name without ending, or a dotted path to a module from outside, with or
            without ``.PLUGIN``.

    Raises:
        UnknownName: there is no such file or module.
        BadRecipe: the module from outside has no ``PLUGIN``.
    """
    if "." in name and not name.startswith("."):
        return _plugin(kind, name, name.removesuffix(".PLUGIN"))
    if name not in names(kind):
        raise UnknownName(kind.removesuffix("s"), name, names(kind))
    return _plugin(kind, name, f"sdcorr.{kind}.{name}")


def name_of(config: object) -> str:
    """The name under which ``find`` returns the class of this config."""
    module = type(config).__module__
    if module.startswith("sdcorr."):
        return module.rpartition(".")[2]
    return module if "." in module else f"{module}.PLUGIN"  # a dot tells it is from outside


def _plugin(kind: str, name: str, path: str) -> type:
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{path}.".startswith(f"{error.name}."):
            raise  # the plug-in is there and lacks something it imports
        raise UnknownName(kind.removesuffix("s"), name, names(kind)) from error
    if not hasattr(module, "PLUGIN"):
        raise BadRecipe(f"{path} is no plug-in of sdcorr: it has no PLUGIN")
    plugin: type = module.PLUGIN
    return plugin

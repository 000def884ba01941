from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sdcorr import plugins
from sdcorr.errors import SdcorrError, UnknownName
from sdcorr.matchers.nearest import Nearest
from sdcorr.plugins import find, name_of, names

ALL = [(kind, name) for kind in ("backbones", "matchers") for name in names(kind)]
REQUIRED = {"mutual": {"matcher": Nearest()}}  # fields without a default


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of somebody else, on the path while the test runs."""
    folder = tmp_path / "somebody_else"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "foo.py").write_text("class Foo:\n    pass\n\n\nPLUGIN = Foo\n")
    (folder / "bar.py").write_text("class Bar:\n    pass\n\n\nPLUGIN = Bar\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for module in [name for name in sys.modules if name.split(".")[0] == "somebody_else"]:
        del sys.modules[module]


def run(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_names_are_the_public_files_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "backbones"
    folder.mkdir()
    for file in ("__init__.py", "zebra.py", "ant.py", "_taps.py", "notes.txt"):
        (folder / file).write_text("raise RuntimeError('names() must not load this')")
    monkeypatch.setattr(plugins, "ROOT", tmp_path)
    assert names("backbones") == ["ant", "zebra"]


def test_the_backbones_and_matchers_of_the_recipes_are_there():
    assert {"dinov2", "sift", "stable_diffusion"} <= set(names("backbones"))
    assert "nearest" in names("matchers")


def test_an_unknown_kind_has_no_names():
    assert names("umbrellas") == []


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_find_returns_the_class_of_that_file(kind: str, name: str):
    assert find(kind, name).__module__ == f"sdcorr.{kind}.{name}"


@pytest.mark.parametrize(("kind", "name"), ALL)
def test_name_of_is_what_find_was_asked_for(kind: str, name: str):
    assert name_of(find(kind, name)(**REQUIRED.get(name, {}))) == name


def test_find_imports_that_module_and_no_other():
    code = (
        "import sys; from sdcorr.plugins import find; find('backbones', 'sift');"
        "print(*(name for name in sys.modules if name.startswith('sdcorr.backbones.')),"
        "*({'diffusers', 'transformers', 'matplotlib'} & set(sys.modules)))"
    )
    public = [name for name in run(code) if not name.startswith("sdcorr.backbones._")]
    assert public == ["sdcorr.backbones.sift"]


def test_names_imports_no_plugin():
    code = (
        "import sys; from sdcorr.plugins import names; names('backbones'); names('matchers');"
        "print(*(name for name in sys.modules if name.startswith('sdcorr.')));"
        "print('torch' in sys.modules)"
    )
    assert sorted(run(code)) == ["False", "sdcorr.errors", "sdcorr.plugins"]


@pytest.mark.parametrize(
    ("kind", "name", "message"),
    [
        (
            "backbones",
            "dinov4",
            r"^no backbone called 'dinov4'; did you mean 'dinov[23]'\? known: .*dinov2, .*sift",
        ),
        ("matchers", "nearst", r"^no matcher called 'nearst'; did you mean 'nearest'\? known: "),
        ("backbones", "sift.py", r"did you mean 'sift'\?"),
        ("backbones", "Sift", r"did you mean 'sift'\?"),
    ],
)
def test_a_slip_of_the_pen_is_told_what_was_meant(kind: str, name: str, message: str):
    with pytest.raises(UnknownName, match=message):
        find(kind, name)


@pytest.mark.parametrize("name", ["qqqqqqqq", ""])
def test_a_name_like_no_other_gets_the_list_and_no_guess(name: str):
    with pytest.raises(UnknownName, match=f"^no backbone called '{name}'; known: .*dinov2"):
        find("backbones", name)


@pytest.mark.parametrize("name", ["_taps", "__init__"])
def test_private_files_are_no_plugins(name: str):
    with pytest.raises(UnknownName, match="known: "):
        find("backbones", name)


def test_an_unknown_kind_says_that_nothing_is_known():
    with pytest.raises(UnknownName, match="no umbrella called 'red'; known: none"):
        find("umbrellas", "red")


@pytest.mark.usefixtures("outside")
def test_a_dotted_path_finds_a_class_outside_and_name_of_returns_it():
    plugin = find("backbones", "somebody_else.foo")
    assert plugin.__name__ == "Foo"
    assert name_of(plugin()) == "somebody_else.foo"
    assert find("backbones", name_of(plugin())) is plugin
    assert "somebody_else.bar" not in sys.modules


@pytest.mark.usefixtures("outside")
@pytest.mark.parametrize(
    "name", ["somebody_else.baz", "nobody.foo", "nobody.at.all", "somebody_else.foo.deeper", "foo."]
)
def test_a_dotted_path_that_leads_nowhere_is_unknown(name: str):
    with pytest.raises(UnknownName, match=f"no backbone called '{name}'; .*known: "):
        find("backbones", name)


@pytest.mark.parametrize("name", [".foo", "./foo.py", ".."])
def test_a_relative_path_is_unknown(name: str):
    with pytest.raises(UnknownName, match="no backbone called "):
        find("backbones", name)


def test_a_module_that_is_no_plugin_is_named_in_the_error():
    with pytest.raises(SdcorrError, match=r"json\.decoder"):
        find("backbones", "json.decoder")


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("import surely_no_such_library", "surely_no_such_library"),
        ("import surely_no_such_library.inner", "surely_no_such_library"),
        ("import somebody_else.lost", r"somebody_else\.lost"),
        ("from . import foo; import somebody_else.foolish", r"somebody_else\.foolish"),
    ],
)
def test_a_plugin_that_lacks_a_library_is_not_called_unknown(
    outside: Path, line: str, missing: str
):
    (outside / "needy.py").write_text(f"{line}\nPLUGIN = int\n")
    with pytest.raises(ModuleNotFoundError, match=missing):
        find("backbones", "somebody_else.needy")


def test_an_error_inside_a_plugin_is_shown_as_it_is(outside: Path):
    (outside / "broken.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        find("backbones", "somebody_else.broken")

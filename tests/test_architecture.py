"""Guards: one direction of imports, half a pixel in one file, short modules."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sdcorr

PACKAGE = Path(sdcorr.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# A module may import what stands above it, never what stands beside or below it.
TIERS: tuple[tuple[str, ...], ...] = (
    ("errors", "footprints", "ahead", "colours"),
    ("geometry", "files", "photos"),
    ("runtime", "pairs", "processes", "annotations", "flo"),
    ("published", "downloads", "lines", "run_about"),
    ("feature_map", "coco", "flow_pairs"),
    ("types",),
    ("preprocess",),
    ("plugins", "models", "metrics", "maps", "masks", "similarities", "clusters"),
    ("symmetry", "segmentation", "flow", "synthetic", "columns"),
    ("warping",),
    ("fields",),
    ("backbones", "fusion", "matchers", "datasets", "viz", "confidence"),
    ("cache", "fused"),
    ("recipe",),
    ("presets",),
    ("pipeline",),
    ("recipes",),
    ("export", "encodings"),
    ("evaluation",),
    ("records", "shards"),
    ("flow_records",),
    ("runs", "hits", "calibration", "transfer", "features"),
    ("benchmark", "labels", "extraction", "scores"),
    ("review", "parts", "report"),
    ("labelling", "demo"),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(TIERS) for name in names}

# Methods of Matches that reach for what stands below when they are called: plot(), to_csv() ...
LAZY = {("types", "viz"), ("types", "export")}
HEAVY = {"diffusers": "backbones", "transformers": "backbones", "matplotlib": "viz"}


def room(module: str) -> str:
    return module.removeprefix("sdcorr.").split(".")[0]


def imports(path: Path) -> list[tuple[str, bool]]:
    """Modules imported by a file, and whether at its top level (type-only imports left out)."""
    tree = ast.parse(path.read_text())
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    found = []
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, node in tree.body) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [
                (name if node.module == "sdcorr" else node.module, node in tree.body)
                for name in names
            ]
    return found


def own_room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_one_way(path):
    here = own_room(path)
    if here in ("__init__", "__main__"):
        return
    for module, _ in imports(path):
        if not module.startswith("sdcorr.") or module == "sdcorr.__version__":
            continue
        there = room(module)
        if (here, there) in LAZY:
            continue
        private = module.split(".")[-1].startswith("_")
        own = here == there and (private or path.name == "__init__.py")
        assert RANK[there] < RANK[here] or own, f"{here} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_heavy_libraries_stay_in_their_rooms(path):
    for module, top in imports(path):
        library = module.split(".")[0]
        if library in HEAVY:
            assert own_room(path) == HEAVY[library]
        if library in ("diffusers", "transformers", "cv2"):
            assert not top, f"{path.name} imports {library} at its top"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_half_a_pixel_has_one_owner(path):
    if path.name != "geometry.py":
        assert not re.search(r"[+-] 0\.5\b", path.read_text())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_and_functions_stay_short(path):
    text = path.read_text()
    assert text.count("\n") < 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 60, node.name


def test_no_pickle_is_ever_read():
    for path in FILES:
        text = path.read_text().replace("allow_pickle=False", "")
        assert not re.search(r"torch\.load\(|pickle", text), path


def test_public_names():
    assert sdcorr.__all__ == [
        "__version__", "Encoding", "FeatureMap", "Features", "Fused", "Grid", "Group", "Image",
        "MapUse", "Matches", "Pipeline", "Recipe", "Runtime", "SdcorrError", "Size", "load",
        "load_image", "read_features", "write_features",
    ]  # fmt: skip
    assert dir(sdcorr) == sorted(sdcorr.__all__)
    for name in sdcorr.__all__:
        assert getattr(sdcorr, name)
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        sdcorr.laod  # noqa: B018


def test_types_are_published():
    assert (PACKAGE / "py.typed").exists()


def test_importing_changes_no_flags():
    code = (
        "import torch, warnings, logging; before = (torch.get_num_threads(), "
        "torch.backends.cudnn.benchmark, torch.get_default_dtype(), list(warnings.filters), "
        "logging.getLogger().handlers[:], torch.initial_seed())\n"
        "import sdcorr.recipes, sdcorr.export, sdcorr.viz, sdcorr.cli\n"
        "after = (torch.get_num_threads(), torch.backends.cudnn.benchmark, "
        "torch.get_default_dtype(), list(warnings.filters), logging.getLogger().handlers[:], "
        "torch.initial_seed())\n"
        "assert before == after"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # read at import: no test may reach for the hub

import numpy as np
import pytest
import torch

from sdcorr.cli import _run
from tests.tiny import write_all, write_dinov2, write_stable_diffusion

torch.set_num_threads(1)  # the models of the tests are too small to share

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(autouse=True)
def _own_modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Modules that a test wrote and imported are gone after it: another may use their names."""
    before, written = set(sys.modules), str(tmp_path_factory.getbasetemp())
    yield
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(written):
            del sys.modules[name]


@pytest.fixture(scope="session")
def dinov2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dinov2(tmp_path_factory.mktemp("dinov2"))


@pytest.fixture(scope="session")
def registers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dinov2(tmp_path_factory.mktemp("registers"), registers=True)


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stable_diffusion(tmp_path_factory.mktemp("sd"))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint for each hub id that a recipe names."""
    return write_all(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    """A photo without symmetry, sides prime to every stride: 313 high, 471 wide."""
    import PIL.Image

    portrait = PIL.Image.open(ROOT / "assets" / "astronaut.png").convert("RGB")
    return np.asarray(portrait.resize((471, 313)))


@pytest.fixture(scope="session")
def other_photo() -> np.ndarray:
    """Another one, upright: 271 high, 199 wide."""
    import PIL.Image

    portrait = PIL.Image.open(ROOT / "assets" / "hopper.jpg").convert("RGB")
    return np.asarray(portrait.resize((199, 271)))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED.is_dir():
        pytest.skip("the annotated pairs are not beside the checkout (../shared/data)")
    return SHARED


@dataclasses.dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line on stderr."""
        (line,) = self.err.splitlines()
        assert line.startswith("sdcorr: ")
        return line


class Command:
    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *arguments: str) -> Done:
        self._capfd.readouterr()
        status = _run(list(arguments))
        return Done(status, *self._capfd.readouterr())


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Command:
    """The command line, in this process: status, stdout and stderr."""
    return Command(capfd)

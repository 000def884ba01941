from __future__ import annotations

from pathlib import Path

import pytest

from sdcorr.synthetic import write_synthetic

SEED, PAIRS = 3, 60


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set that many tests read and none changes."""
    out = tmp_path_factory.mktemp("drawn") / "set"
    write_synthetic(out, SEED, PAIRS)
    return out

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.runs import make_runs


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of finished runs, by a short name."""
    return make_runs(tmp_path_factory.mktemp("report"))

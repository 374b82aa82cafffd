"""Shared fixtures, and run-time checks of every annotated shape and type in the package."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

if os.environ.get("UBF_TYPECHECK", "1") != "0":
    import runtime_checks

    runtime_checks.install()

torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
ROOT = Path(__file__).resolve().parent.parent


def pytest_collectstart() -> None:
    """Every module of tests is read from the same global random state: its constants are the same in every run."""
    seed_all()


@pytest.fixture(autouse=True)
def _seeds() -> None:
    """Every test starts from the same global random state, whatever ran before it."""
    seed_all()


def seed_all() -> None:
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - libraries under test use the legacy state
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def UBF_DATA() -> Path:  # noqa: N802 - named as the environment variable
    """Folder with the real images: $UBF_DATA, by default ../shared/data beside the repository."""
    given = os.environ.get("UBF_DATA")
    folder = Path(given).expanduser() if given else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            f"real data not found at {folder}: set UBF_DATA to the folder that holds hsi/, msi/ and rgb/"
        )
    return folder


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` are skipped where there is no CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))

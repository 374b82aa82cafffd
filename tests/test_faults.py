"""Every command that writes survives kills, full disks, closed folders and a second one of its kind (see `faults`)."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import JOBS, Job, confined, make_inputs, try_all

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("job", JOBS, ids=lambda job: job.name)
def test_faults(job: Job, inputs: Path, tmp_path: Path) -> None:
    counts = try_all(job, inputs, tmp_path, kills=3, disks=1)
    assert counts["killed"] == 3
    assert counts["read-only"] == 1 or confined() is None

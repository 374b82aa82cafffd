"""Malformed files, bundles and pictures: every line of their tables is refused with a reason, or read right."""

from __future__ import annotations

from pathlib import Path

import fuzz_bundles
import pytest
from malformed_bundles import BUNDLES, PICTURES
from malformed_files import Case, outcome
from malformed_table import CASES


def test_there_are_more_than_a_hundred_and_no_two_are_called_alike() -> None:
    every = [str(case) for case in (*CASES, *BUNDLES, *PICTURES)]
    assert len(every) >= 200
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("case", [*CASES, *BUNDLES, *PICTURES], ids=str)
def test_it_is_refused_with_a_reason_or_read_right(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = outcome(case, tmp_path)
    if case.words is None:
        assert found.what == "read", found
        return
    assert found.what == "refused", found
    for words in case.words.split("|"):
        assert words.lower() in found.message.lower(), found.message


@pytest.mark.slow
def test_bundles_of_chance_are_refused_or_whole(tmp_path: Path) -> None:
    """A look of half a minute; ``tests/fuzz_bundles.py`` goes on as long as one likes."""
    found = {}
    for seed in range(500):
        folder = tmp_path / str(seed)
        folder.mkdir()
        found[seed] = fuzz_bundles.outcome(fuzz_bundles.altered(folder, seed))
    assert set(found.values()) == fuzz_bundles.FINE

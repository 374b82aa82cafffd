"""Faults and malformed inputs, tried: how many, and what came of them.

    python benchmarks/reliability.py --preset full

*Malformed inputs*: every line of the tables of `tests/malformed_*.py` (files, bundles, pictures), read as a user would; each
must be refused with a reason that says what to do, or be read right where nothing is wrong with its values.

*Bundles of chance*: files of a good bundle altered at random and signed again (`tests/fuzz_bundles.py`), 1 or 10 minutes of
them; each must be refused by an error of the package, or draw a finite image.

*Commands*: each command that writes, on made inputs (`tests/faults.py`): killed (SIGKILL) at random moments until it has been
killed 5 or 20 times, after which the same command must end with the result of an undisturbed one; on disks of random sizes that
become full, which it must tell, and go on when there is room; in a folder that cannot be written; twice at once, of which one
must be refused, or both end alike; where its result is there already, which must be kept until ``--overwrite`` is given.
After each kill and each full disk, every file under a final name must be whole.

*Tests of faults*: those whose names speak of kills, interruptions, damage, locks and several processes, run once more.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from common import HERE, Result, arguments

TESTS = HERE.parent / "tests"
SETTINGS: dict[str, Any] = {
    "minutes": {"quick": 1, "full": 10}, "first seed": 100_000,
    "kills": {"quick": 5, "full": 20}, "disks": {"quick": 1, "full": 5},
    "faults": "kill or interrupt or terminated or damaged or two_processes or two_jobs or workers or resumed or chance",
}  # fmt: skip


def main() -> None:
    """Try, count, write."""
    args = arguments(__doc__ or "")
    sys.path.insert(0, str(TESTS))
    result = Result("reliability", "Faults and malformed inputs", "made files.", args, [0], SETTINGS)
    malformed(result)
    chance(result, SETTINGS["minutes"][args.preset])
    commands(result, SETTINGS["kills"][args.preset], SETTINGS["disks"][args.preset])
    tests(result)
    result.write()


def malformed(result: Result) -> None:
    """Every malformed input, by kind."""
    from malformed_bundles import BUNDLES, PICTURES
    from malformed_files import outcome
    from malformed_table import CASES

    found: dict[str, Counter[str]] = {}
    for case in (*CASES, *BUNDLES, *PICTURES):
        with tempfile.TemporaryDirectory() as folder:
            kind = str(case).partition(":")[0]
            found.setdefault(kind, Counter())[outcome(case, Path(folder)).what] += 1
    rows = [
        [kind, c.total(), c["refused"], c["read"], c.total() - c["refused"] - c["read"]]
        for kind, c in sorted(found.items())
    ]
    result.table(
        "Malformed inputs", ["kind", "tried", "refused with a reason", "read right", "anything else"], rows, [0, 0, 0, 0]
    )  # fmt: skip
    result.claim(
        "every malformed input is refused with a reason or read right",
        all(row[4] == 0 for row in rows), f"{sum(r[1] for r in rows)} inputs",
    )  # fmt: skip


def chance(result: Result, minutes: float) -> None:
    """Bundles altered at random."""
    import fuzz_bundles

    counts = fuzz_bundles.search(minutes, SETTINGS["first seed"])
    result.table(
        f"Bundles of chance, {minutes:g} min", ["outcome", "bundles"], [[k, v] for k, v in counts.most_common()], [0]
    )  # fmt: skip
    result.claim(
        "every altered bundle is refused or draws an image", set(counts) <= fuzz_bundles.FINE,
        f"{counts.total()} bundles",
    )  # fmt: skip


def commands(result: Result, kills: int, disks: int) -> None:
    """Faults done to every command that writes."""
    import faults

    rows, failed = [], []
    with tempfile.TemporaryDirectory() as folder:
        inputs = faults.make_inputs(Path(folder) / "inputs")
        for job in faults.JOBS:
            print(job.name, file=sys.stderr, flush=True)
            try:
                counts = faults.try_all(job, inputs, Path(folder), kills, disks)
            except AssertionError as error:
                counts = Counter()
                failed.append(f"{job.name}: {error}")
            rows.append([job.name, *(counts[what] for what in faults.COUNTED)])
    result.table("Commands, number of faults", ["command", *faults.COUNTED], rows, [0] * len(faults.COUNTED))
    result.claim(
        "every command survives every fault", not failed,
        "; ".join(failed) or f"{sum(sum(row[1:]) for row in rows)} times looked",
    )  # fmt: skip


def tests(result: Result) -> None:
    """Tests of faults, by file."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        words = ["-q", "-n", "auto", "-m", "not gpu", "-k", SETTINGS["faults"], f"--junitxml={report}", str(TESTS)]  # fmt: skip
        subprocess.run([sys.executable, "-m", "pytest", *words], cwd=HERE.parent, stdout=subprocess.DEVNULL)
        cases = list(ElementTree.parse(report).getroot().iter("testcase"))
    counts: dict[str, Counter[str]] = {}
    for case in cases:
        bad = {child.tag for child in case}
        state = "skipped" if "skipped" in bad else "failed" if bad & {"failure", "error"} else "passed"
        name = case.get("classname", "").rpartition(".")[2].removeprefix("test_").replace("_", " ")
        if name != "malformed" or "chance" in case.get("name", ""):  # counted above
            counts.setdefault(name, Counter())[state] += 1
    rows = [[name, c["passed"], c["failed"], c["skipped"]] for name, c in sorted(counts.items())]
    result.table("Tests of faults", ["tests of", "passed", "failed", "skipped"], rows, [0, 0, 0])
    result.claim(
        "every fault is survived as its test asks", bool(rows) and not any(row[2] for row in rows),
        f"{sum(row[1] for row in rows)} tests",
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""Bundles of chance: files of a good bundle altered at random and signed again, then loaded.

    python tests/fuzz_bundles.py --minutes 10

Every load must end in a synthesizer that draws one finite image, or in one of the package's own errors. Anything else is a
finding, and is kept in ``fuzz-findings/`` with the seed that makes it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]

import torch
from malformed_bundles import sign, whole

from ubf_augment import HSISynthesizer
from ubf_augment.errors import UBFError

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 7, 10**9, 2**63, -(2**31), 1e308, -0.5, float("nan"), float("inf"), "", "x", "../../x",
    "/etc/passwd", "a" * 5000, [], {}, [1], [[]], {"a": 1}, [None] * 50, "ddpm", "cpu", "\u0000", "é",
)  # fmt: skip


FINE = {"refused", "drew an image"}


def alter_json(value: Any, rng: random.Random, depth: int = 0) -> Any:
    """The value with one thing in it changed."""
    if isinstance(value, dict) and value and (depth == 0 or rng.random() < 0.7):
        key = rng.choice(sorted(value))
        kind = rng.random()
        changed = dict(value)
        if kind < 0.15:
            del changed[key]
        elif kind < 0.25:
            changed[str(rng.choice(VALUES))] = rng.choice(VALUES)
        else:
            changed[key] = alter_json(value[key], rng, depth + 1)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.6:
        i = rng.randrange(len(value))
        if rng.random() < 0.3:
            return value[:i] + value[i + 1 :]
        return [*value[:i], alter_json(value[i], rng, depth + 1), *value[i + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and rng.random() < 0.5:
        return value * rng.choice([-1, 0, 2, 0.5, 1e3, 1e12]) + rng.choice([0, 1, -1])
    return rng.choice(VALUES)


def alter_bytes(data: bytes, rng: random.Random) -> bytes:
    """The bytes with some of them flipped, cut, doubled or exchanged."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        at = rng.randrange(len(out) + 1)
        if rng.random() < 0.5:  # the head says what the tensors are
            at = rng.randrange(min(len(out), 400) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + rng.choice([1, 4, 64, len(out)])]
        elif kind == 2:
            out[at:at] = rng.randbytes(rng.choice([1, 4, 64]))
        else:
            out[at : at + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, b"F32", b"[0]", b"}}", b"99999999"])
    return bytes(out)


def altered(folder: Path, seed: int) -> Path:
    """A bundle with one or two files altered; most are signed again, so that checksums do not give it away."""
    rng = random.Random(seed)
    root = folder / "bundle"
    shutil.copytree(whole(), root)
    files = sorted(p for p in root.rglob("*") if p.suffix in (".json", ".safetensors"))
    for path in rng.sample(files, rng.choice([1, 1, 2])):
        data = path.read_bytes()
        if path.suffix == ".json" and rng.random() < 0.8:
            data = json.dumps(alter_json(json.loads(data), rng)).encode()
        else:
            data = alter_bytes(data, rng)
        path.write_bytes(data)
    if rng.random() < 0.9:
        with contextlib.suppress(Exception):  # the index is beyond signing
            sign(root)
    return root


def outcome(root: Path) -> str:
    """What loading ends in, and drawing an image.

    Raises:
        Exception: a finding.
    """
    try:
        synth = HSISynthesizer.from_pretrained(root)
    except UBFError as error:
        if len(str(error)) < 10:
            raise AssertionError(f"an error without a reason: {error!r}") from error
        return "refused"
    x = synth.sample([0] if synth.classes else None, seed=0)
    return "drew an image" if bool(torch.isfinite(x).all()) else "drew what is not finite"


def search(minutes: float, seed: int, keep: Path | None = None) -> Counter[str]:
    """Alter and load for some minutes, and count what it ends in.

    Args:
        minutes: how long.
        seed: of the first bundle; the next have the next seeds.
        keep: where bundles that are findings go, by their seed.
    """
    counts: Counter[str] = Counter()
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        with tempfile.TemporaryDirectory() as folder:
            root = altered(Path(folder), seed)
            try:
                counts[outcome(root)] += 1
            except Exception as error:
                counts[f"{type(error).__name__}: {str(error)[:80]}"] += 1
                print(f"seed {seed}: {type(error).__name__}: {error}", file=sys.stderr)
                if keep is not None:
                    shutil.copytree(root, keep / str(seed), dirs_exist_ok=True)
        seed += 1
    return counts


def main() -> int:
    """Search, and tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument(
        "--seed", type=int, default=0, help="of the first bundle; the next have the next seeds"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    counts = search(args.minutes, args.seed, Path("fuzz-findings"))
    for what, number in counts.most_common():
        print(f"{number:7d}  {what}")
    return int(not set(counts) <= FINE)


if __name__ == "__main__":
    raise SystemExit(main())

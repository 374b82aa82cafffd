"""Train the packaged bundle ``aid-chikusei``: a Chikusei block and 30 classes of AID pictures in one abundance space.

    python benchmarks/bundles/aid_chikusei.py --data ../shared/data --steps 20000

Endmembers come from the Chikusei block (59 bands, 399–698 nm; Yokoya and Iwasaki 2016); the pictures are AID
scenes (Xia et al. 2017, doi:10.1109/TGRS.2017.2685945) at 64×64. Display values become reflectance by one curve
for the whole source, r = 0.45 v^1.5: forest, soil and roofs then lie where measured spectra lie. The HSI's own
abundance windows are a class of their own.

Run the same command again after an interruption: it goes on from ``--workdir``. On a GPU give more ``--steps``;
nothing else changes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from pictures import add_picture
from PIL import Image
from torch import Tensor

from ubf_augment import HSISynthesizer, mix, read_hsi
from ubf_augment.metrics import sad
from ubf_augment.training import make_fabric

WAVELENGTHS = np.linspace(398.71, 698.04, 59).round(2).tolist()
RGB_SCALE, RGB_GAMMA = 0.45, 1.5
DUPLICATES = ("industrial_205.jpg",)


def main() -> None:
    """Train, measure, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="folder with rgb/aid150 and hsi/"
    )
    parser.add_argument("--workdir", type=Path, default=Path("runs/aid-chikusei"), help="checkpoints")
    parser.add_argument("--out", type=Path, default=Path("ubf_augment/weights/aid-chikusei"))
    parser.add_argument("--steps", type=int, default=20_000, help="of the denoiser")
    parser.add_argument("--codec-steps", type=int, default=1500)
    parser.add_argument("--unmixing-steps", type=int, default=600)
    parser.add_argument("--precision", default="bf16-mixed", help="of Lightning Fabric")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    hsi = read_hsi(args.data / "hsi" / "chikusei_282.mat", key="Y", wavelengths=WAVELENGTHS, scale=1.0)
    start = time.monotonic()
    synth = HSISynthesizer.fit(
        [hsi], pictures(args.data / "rgb" / "aid150"), hsi_labels=["Chikusei"], workdir=args.workdir,
        fabric=make_fabric(precision=args.precision), num_endmembers=6, size=(64, 64), restarts=4, pull=1e-3,
        rgb_scale=RGB_SCALE, rgb_gamma=RGB_GAMMA, unmixing_steps=args.unmixing_steps,
        unmixing_options={"endmember_lr": 2e-3}, generator_config={"whiten": 0.25, "steps": 5, "guidance": 1.0},
        generator_steps=args.steps, generator_batch_size=64, seed=args.seed,
        generator_options={"lr": 1e-3, "warmup": 100, "codec_steps": args.codec_steps, "ema_decay": 0.999},
        card={
            "summary": "HSIs of 30 scene classes in 59 visible bands, with endmembers of a Chikusei block",
            "sensor": "Hyperspec-VNIR (Chikusei), 59 bands, 398.7 to 698.0 nm",
            "data": {"hsi": "Chikusei block 282, 128×128 pixels", "rgb": "AID, 6,769 scenes at 64×64, one duplicate left out"},
            "licence": "weights: Apache-2.0; the data are not included",
            "seed": args.seed,
        },
    )  # fmt: skip
    synth.card["generation"] = generation_figures(synth)
    synth.card["training"]["seconds_of_the_last_call"] = round(time.monotonic() - start, 1)
    synth.save_pretrained(args.out, dtype="float16")
    add_picture(args.out, list(synth.classes[:30:3]))
    size = sum(f.stat().st_size for f in args.out.rglob("*") if f.is_file())
    print(f"wrote {args.out}: {size / 2**20:.2f} MiB; pictures in samples.png")


def pictures(root: Path) -> dict[str, list[Tensor]]:
    """Class name → AID pictures, uint8 (3, H, W)."""
    found: dict[str, list[Tensor]] = {}
    for folder in sorted(p for p in root.iterdir() if p.is_dir()):
        paths = sorted(p for p in folder.glob("*.jpg") if p.name not in DUPLICATES)
        found[folder.name] = [
            torch.from_numpy(np.array(Image.open(p).convert("RGB"))).movedim(-1, 0) for p in paths
        ]
    return found


def generation_figures(synth: HSISynthesizer, per_class: int = 4) -> dict[str, float]:
    """Simplex check of samples, and the mean angle between the classes' mean spectra and the shared mean."""
    y = [name for name in synth.classes for _ in range(per_class)]
    a = synth.sample_abundances(y, seed=0)
    spectra = mix(a, synth.endmembers).mean((2, 3)).view(len(synth.classes), per_class, -1).mean(1)
    return {
        "samples": len(y),
        "smallest_abundance": float(a.min()),
        "largest_sum_error": float((a.sum(1) - 1).abs().max()),
        "mean_angle_of_class_spectra_to_their_mean_deg": float(
            sad(spectra, spectra.mean(0, keepdim=True).expand_as(spectra))
        ),
    }


if __name__ == "__main__":
    main()

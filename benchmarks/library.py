"""Endmembers from a library of measured spectra against endmembers found in the images, on places left out.

    python benchmarks/library.py --preset full

From one half of the places eight endmembers, shade included, are taken: by vertex component analysis and refinement
("found in the images"), or chosen from the spectra of the package earthlib by what they explain ("measured"), which stay as
they were measured, or are refined on the images afterwards ("measured, then refined"). The other half is unmixed with all bands
and mixed again, and made from red, green and blue by the regression that the first half teaches (its centre, without classes).
EuroSAT holds top-of-atmosphere reflectance, the others surface reflectance; the library knows neither water nor atmosphere.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from beyond_visible import Case, infrared, load, total
from common import Journal, Result, arguments, mean
from torch import Tensor

from ubf_augment import Endmembers, fcls, mix
from ubf_augment.io import earthlib
from ubf_augment.seeding import derive_seed
from ubf_augment.spectra import rgb_bands
from ubf_augment.unmixing import RGBRegression, refine, select, vca, with_shade

SETTINGS: dict[str, Any] = {
    "endmembers": 8,
    "pixels": 1000,
    "refinements": 50,
    "seeds": {"quick": 1, "full": 5},
}
FOUND, MEASURED, REFINED = "found in the images", "measured", "measured, then refined"


def within(case: Case, library: Endmembers) -> Case:
    """The bands that the library covers."""
    keep = (case.nm >= library.wavelengths[0]) & (case.nm <= library.wavelengths[-1])
    return replace(case, x=case.x[:, keep], nm=case.nm[keep])


@torch.no_grad()
def measure(case: Case, library: Endmembers, seed: int) -> dict[str, Any]:
    """Errors on one half of the places with endmembers of the other."""
    train, test = case.split(seed)
    rgb, x = list(rgb_bands(case.nm)), case.x[test]
    pixels = case.x[train].movedim(1, -1).flatten(0, -2)
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(derive_seed(seed, 5)))
    some, count = pixels[order[: SETTINGS["pixels"]]].clamp_min(0), SETTINGS["endmembers"]
    chosen = select(library.resample(case.nm), some, count - 1)
    turns = SETTINGS["refinements"]
    spectra: dict[str, Tensor] = {
        FOUND: refine(some, with_shade(vca(some, count - 1, seed=seed)), shade=True, iterations=turns),
        MEASURED: chosen.spectra,
        REFINED: refine(some, chosen.spectra, shade=True, iterations=turns),
    }
    found: dict[str, Any] = {"chosen": list(chosen.names)}
    for name, e in spectra.items():
        endmembers = Endmembers(e, case.nm)
        maps = [fcls(case.x[i][None], endmembers)[0] for i in train]
        places = [int(case.place[i]) for i in train]
        model = RGBRegression(endmembers, rgb_index=rgb)
        model.fit([case.x[i][rgb] for i in train], maps, scenes=places, seed=seed)
        for way, a in (("unmixed", fcls(x, endmembers)), ("colours", model.unmix_rgb(x[:, rgb]))):
            error = (mix(a, endmembers) - x).square().mean((0, 2, 3)).sqrt().tolist()
            found[f"{name}, {way}"] = {"all": total(error, case), "infrared": infrared(error, case)}
    return found


def main() -> None:
    """Measure on several splits, write."""
    args = arguments(__doc__ or "")
    seeds = list(range(args.seeds or SETTINGS["seeds"][args.preset]))
    result = Result(
        "library", "Endmembers measured in the field against endmembers found in the images",
        "EuroSAT, MUUFL Gulfport and EnMAP Potsdam as in beyond_visible; 7,261 spectra of earthlib 1.1.", args, seeds, SETTINGS,
    )  # fmt: skip
    result.journal = Journal(result.name, args, SETTINGS)
    library, rows = earthlib(), []
    for name, make in load(args).items():
        case = within(make(), library)
        runs = [result.journal.run(f"{name}/{s}", lambda c=case, s=s: measure(c, library, s)) for s in seeds]  # type: ignore[misc]
        result.runs += [{"case": name, "seed": s} | r for s, r in zip(seeds, runs, strict=True)]
        for kind in (FOUND, MEASURED, REFINED):
            cells = [
                mean([r[f"{kind}, {way}"][part] for r in runs])
                for way in ("unmixed", "colours")
                for part in ("all", "infrared")
            ]
            rows.append([f"{name}, {kind}", *cells])
        one, two = (mean([r[f"{k}, colours"]["infrared"] for r in runs])["centre"] for k in (FOUND, MEASURED))
        result.claim(
            f"{name}: from red, green and blue, measured spectra reach the near infrared as well as found ones (within 10 %)",
            two <= 1.1 * one, f"{one:.4f} found, {two:.4f} measured",
        )  # fmt: skip
        kinds = sorted({n.split()[0] for r in runs for n in r["chosen"]} - {"shade"})
        result.notes.append(f"{name}: chosen were spectra of {', '.join(kinds)}.")
    columns = [
        "endmembers", "unmixed, all bands", "unmixed, near infrared", "from colours, all bands", "from colours, near infrared",
    ]  # fmt: skip
    result.table("Places left out, RMSE in reflectance", columns, rows, [4] * 4)
    result.write()


if __name__ == "__main__":
    main()

"""Labelled synthetic images on disk, as many as wanted: GeoTIFF folders, or tar shards for WebDataset.

Work is dealt to any number of processes, goes on after a kill, and holds one batch in memory. A sample is the same bytes for
any number of processes and after any interruption, because every network evaluation is the same one (see `Plan`).
"""

from ubf_augment.export.job import SampleExport
from ubf_augment.export.plan import Plan, choose_classes
from ubf_augment.export.writers import TarShards, TiffFolder, Writer

__all__ = ["Plan", "SampleExport", "TarShards", "TiffFolder", "Writer", "choose_classes"]

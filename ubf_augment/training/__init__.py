"""One resumable training loop for every model of this package, on Lightning Fabric (devices, precision, DDP).

Nothing random is carried from step to step: the data order, the noise of a step and the state of the global
random numbers (dropout) are functions of ``(seed, step, rank)``. A run that was killed and started again
therefore walks exactly the path of an uninterrupted one, and on a CPU in float32 ends with the same weights,
bit for bit.
"""

from ubf_augment.training.loop import LossFn, digest, fit_loop, read_checkpoint, save_atomic
from ubf_augment.training.parts import EMA, DataOrder, History, Schedule, warmup_constant, warmup_cosine
from ubf_augment.training.processes import alone, launch, make_fabric, once, share, together

__all__ = [
    "EMA",
    "DataOrder",
    "History",
    "LossFn",
    "Schedule",
    "alone",
    "digest",
    "fit_loop",
    "launch",
    "make_fabric",
    "once",
    "read_checkpoint",
    "save_atomic",
    "share",
    "together",
    "warmup_constant",
    "warmup_cosine",
]

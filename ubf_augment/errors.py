"""Exception types: each says what was wrong, where, and what to do.

Every class derives from `UBFError` and from the built-in type a caller would expect, so ``except ValueError`` works too.
"""


class UBFError(Exception):
    """Base class of every error raised on purpose by this package."""


class ShapeError(UBFError, ValueError):
    """A tensor has the wrong number of axes or incompatible sizes (an unbatched image, for instance)."""


class SimplexError(UBFError, ValueError):
    """Abundances are negative or do not sum to one."""


class WavelengthError(UBFError, ValueError):
    """Wavelengths are missing, unsorted, implausible, or outside the range that is covered."""


class BandCountError(WavelengthError):
    """The number of bands differs from the number of wavelengths or from what a bundle expects."""


class NoDataError(UBFError, ValueError):
    """An image holds NaN, infinite or nodata pixels where reflectance is needed."""


class RadiometryError(UBFError, ValueError):
    """The radiometric scale of an image is unknown or implausible."""


class LabelError(UBFError, ValueError):
    """A class label is out of range."""


class UnknownClassError(UBFError, ValueError):
    """A class name is not known to the synthesizer."""


class MissingLabelError(UBFError, TypeError):
    """Labels are needed but were not given."""


class HSIReadError(UBFError, OSError):
    """A file or folder cannot be read as hyperspectral images."""


class BundleError(UBFError, ValueError):
    """A pretrained bundle is incomplete or was altered."""


class BundleVersionError(BundleError):
    """A pretrained bundle was written in a newer format than this version can read."""


class OtherProcessError(UBFError, RuntimeError):
    """Another process of the same job failed; the first one tells how."""

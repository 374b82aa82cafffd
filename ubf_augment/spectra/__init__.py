"""Spectra and their wavelengths: endmembers, sensors, Gaussian spectral responses, RGB bands. Wavelengths in nm."""

from ubf_augment.spectra.bands import (
    RGB_NM,
    Wavelengths,
    check_wavelengths,
    red_green_blue,
    rgb_bands,
    sees_infrared,
    sort_bands,
)
from ubf_augment.spectra.endmembers import Endmembers
from ubf_augment.spectra.response import resample, spectral_response
from ubf_augment.spectra.sensors import Sensor, list_sensors, sensor

__all__ = [
    "RGB_NM",
    "Endmembers",
    "Sensor",
    "Wavelengths",
    "check_wavelengths",
    "list_sensors",
    "red_green_blue",
    "resample",
    "rgb_bands",
    "sees_infrared",
    "sensor",
    "sort_bands",
    "spectral_response",
]

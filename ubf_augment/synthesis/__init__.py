"""Synthesis: unmixing, endmembers, residual, generator and classes in one object, and its uses."""

from ubf_augment.synthesis.model import HSISynthesizer, list_pretrained

__all__ = ["HSISynthesizer", "list_pretrained"]

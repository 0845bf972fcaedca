"""Frozen feature extractors."""

from nst_lightning.features.compact import CompactVGG19
from nst_lightning.features.extractor import Extractor, Features
from nst_lightning.features.vgg import VGG19

__all__ = ["VGG19", "CompactVGG19", "Extractor", "Features"]

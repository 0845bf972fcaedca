"""Pictures: reading them into sRGB tensors, resizing them, and writing them back with their settings."""

from nst_lightning.images.io import (
    Picture,
    check_image,
    check_writable,
    read_image,
    read_mask_samples,
    read_metadata,
    write_image,
)
from nst_lightning.images.resize import resize, target_size

__all__ = [
    "Picture",
    "check_image",
    "check_writable",
    "read_image",
    "read_mask_samples",
    "read_metadata",
    "resize",
    "target_size",
    "write_image",
]

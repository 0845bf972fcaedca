"""The request: pictures, styles, masks, sizes and stages."""

from nst_lightning.data.module import StyleTransferData

__all__ = ["StyleTransferData"]

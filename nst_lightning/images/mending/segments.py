"""TIFF of which strips or tiles are cut or damaged: what the others hold."""

from typing import Any

import numpy as np

from nst_lightning.images.mending.damage import MOST_MISSING, told
from nst_lightning.images.opening import is_cut, remark


def samples(page: Any) -> Any:
    """All samples of a tifffile.TiffPage, as its ``asarray()`` has them; zero where a strip or tile is not decodable.

    Raises:
        CutError: The file ends early, and more than a quarter of the pixels are missing.
        Exception: What tifffile raises, where it is damaged otherwise and as much is missing.
    """
    try:
        return page.asarray()
    except MemoryError:
        raise
    except Exception as error:
        values, missing = _decodable(page)
        if missing > MOST_MISSING and not is_cut(error):
            raise
        remark(told(missing))
        return values


def _decodable(page: Any) -> tuple[Any, float]:
    """Samples, and the fraction of them that is missing."""
    values = np.zeros(page.shaped, page.dtype)
    there, handle = 0.0, page.parent.filehandle
    for index, (offset, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=False)):
        handle.seek(offset)
        data = handle.read(count)
        fraction = 1.0
        if len(data) < count:
            if page.compression != 1 or not data:
                continue
            fraction = len(data) / count
            data = data.ljust(count, b"\0")
        try:
            segment, (s, d, h, w, _), shape = page.decode(data, index)
            block = segment[: page.imagedepth - d, : page.imagelength - h, : page.imagewidth - w]
            values[s, d : d + shape[0], h : h + shape[1], w : w + shape[2]] = block
        except MemoryError:
            raise
        except Exception:  # a decoder of damaged data
            continue
        there += fraction * block.size
    return values.reshape(page.shape), 1 - there / values.size

"""One picture by Pillow, of listed formats and a bounded size.

Pillow opens any format whatever a file is called: some start programs (EPS runs Ghostscript), and
its own bound of pixels is past half a gigabyte.
"""

from __future__ import annotations

from math import prod
from typing import IO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .archive import UNREADABLE

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
MAX_PIXELS = 2**25  # 8K


def read_picture(
    file: IO[bytes], formats: tuple[str, ...] = FORMATS, mode: Literal["RGB"] | None = None
) -> NDArray[np.uint8]:
    """Pixels (H, W) or (H, W, C) uint8 as they are stored, or in `mode`; raises ValueError."""
    try:
        with Image.open(file, formats=formats) as image:
            if (pixels := prod(image.size)) > MAX_PIXELS:
                raise ValueError(f"{pixels} pixels, more than {MAX_PIXELS}")
            return np.asarray(image.convert(mode) if mode else image, np.uint8)
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise ValueError(getattr(error, "strerror", None) or str(error)) from error

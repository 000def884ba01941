"""CIELAB colours as sRGB."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def lab_to_rgb(lab: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """CIELAB (L* 0 to 100, a*, b*; white D65) as sRGB: ``(..., 3)`` in, ``(..., 3)`` uint8 out.

    A colour beyond sRGB gets the nearest value in each channel: another hue.

    Example:
        >>> lab_to_rgb(np.array([[100.0, 0.0, 0.0], [50.0, 0.0, 40.0]])).tolist()
        [[255, 255, 255], [139, 117, 48]]
    """
    import cv2

    flat = np.ascontiguousarray(lab, dtype=np.float32).reshape(-1, 1, 3)
    if not len(flat):  # OpenCV refuses an empty picture
        return np.zeros(lab.shape, np.uint8)
    rgb = cv2.cvtColor(flat, cv2.COLOR_LAB2RGB).reshape(lab.shape)
    colours: npt.NDArray[np.uint8] = np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8)
    return colours

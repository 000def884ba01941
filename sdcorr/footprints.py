"""What each recipe took at most where it was measured."""

from __future__ import annotations

# Peak of the whole process on a CPU in float32, in GB, by eval/footprint.py.
MEMORY = {
    "sd-dino": 7.7,
    "sd-dino-single": 9.3,
    "geoaware": 7.9,
    "cleandift-dino": 5.5,
    "dift": 8.0,
    "cleandift-sd21": 5.9,
    "cleandift-sd15": 5.5,
    "sd15": 8.0,
    "sd21": 7.9,
    "sd-turbo": 8.0,
    "sdxl": 14.3,
    "dinov2-s": 0.8,
    "dinov2-s-registers": 0.8,
    "dinov2-b": 1.0,
    "dinov2-b-registers": 1.0,
    "dinov2-l": 2.0,
    "dinov2-l-registers": 1.9,
    "dinov2-g": 5.4,
    "dinov2-g-registers": 5.3,
    "dinov3-s": 0.7,
    "dinov3-b": 0.9,
    "dinov3-l": 1.8,
    "dino-v1": 1.2,
    "vit": 0.9,
    "sift": 0.5,
    "sift-hough": 0.4,
    "same-position": 0.3,
}

HOW = "the whole process, CPU, float32 (eval/footprint.py)"

"""Emoji artwork from npm packages, cut out and scaled to sprites.

Needs the extra `pocket-build` (resvg-py) and, at first use, the npm client.
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from srbench.errors import MissingError
from srbench.pocket.world import OBJECTS

VENDORS = {"noto": "noto@1.2.9", "twemoji": "twemoji@1.2.5", "fluent-emoji-flat": "fluent-emoji-flat@1.2.6"}
SIZES_PX = tuple(range(26, 49, 2))
RASTER_PX = 128

Sprites = dict[tuple[str, str, int], np.ndarray]
"""(vendor, object key, size px) -> premultiplied RGBA in [0, 1], (size, size, 4)."""


def _packed(package: str, folder: Path) -> str:
    """Name of the archive that npm put into `folder`."""
    command = ["npm", "pack", "--silent", f"@iconify-json/{package}"]
    try:
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MissingError(f"npm could not fetch @iconify-json/{package}: {reason}", "Check npm's registry.") from error


def fetch(folder: Path) -> dict[str, dict]:
    """Icon sets by vendor, downloaded once into `folder`. Raises `MissingError` where npm fails."""
    folder.mkdir(parents=True, exist_ok=True)
    sets = {}
    for vendor, package in VENDORS.items():
        target = folder / f"{vendor}.json"
        if not target.exists():
            with tarfile.open(folder / _packed(package, folder)) as archive:
                member = archive.extractfile("package/icons.json")
                assert member is not None, f"@iconify-json/{package} holds no icons.json"
                target.write_bytes(member.read())
        sets[vendor] = json.loads(target.read_text())
    return sets


def _icon(icons: dict, name: str) -> tuple[dict, str]:
    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    return icons["icons"][name], name


def _rasterise(icons: dict, name: str) -> np.ndarray:
    """Icon as premultiplied RGBA, cropped to its ink and squared, (side, side, 4) in [0, 1]."""
    import resvg_py

    icon, _ = _icon(icons, name)
    width = icon.get("width", icons.get("width", icons["height"]))
    height = icon.get("height", icons["height"])
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {width} {height}" '
        f'width="{RASTER_PX}" height="{RASTER_PX}">{icon["body"]}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg))
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")).astype(np.float32) / 255
    image[..., :3] *= image[..., 3:]
    rows, columns = np.where(image[..., 3] > 0.05)
    cut = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    side = max(cut.shape[:2])
    square = np.zeros((side, side, 4), np.float32)
    top, left = (side - cut.shape[0]) // 2, (side - cut.shape[1]) // 2
    square[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    return square


def sprites(folder: Path) -> Sprites:
    """Every object of every vendor in every size."""
    cv2.setNumThreads(1)
    scaled: Sprites = {}
    for vendor, icons in fetch(folder).items():
        for key, item in OBJECTS.items():
            full = _rasterise(icons, item.icon)
            for size in SIZES_PX:
                scaled[vendor, key, size] = cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)
    return scaled

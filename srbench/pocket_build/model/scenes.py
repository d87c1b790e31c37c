"""Scenes of the pocket world: what stands in them, and how they are drawn.

A scene is (objects, style, background); `sample_scene` draws one at random and `Painter.render` paints it,
64 x 64, from sprites. One combination of object x style x background in eight is never used for training.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np

from srbench.pocket.scene import Scene
from srbench.pocket.world import BACKGROUNDS, COLORS, CONCEPTS, OBJECTS, STYLES
from srbench.pocket_build.model.sprites import Sprites, sprites

SIDE_PX = 64
STYLE_SHARE = {"noto": 0.19, "twemoji": 0.19, "fluent": 0.19, "vangogh": 0.25, "sketch": 0.18}
EMPTY_SHARE = 0.14
PAIR_SHARE = 0.40
HELD_OUT_ONE_IN = 8

_ROW, _COLUMN = np.mgrid[0:SIDE_PX, 0:SIDE_PX].astype(np.float32)


def held_out(obj: str, style: str, background: str) -> bool:
    """Whether this combination is kept from all training and used for held-out captions only."""
    digest = hashlib.sha256(f"{obj}|{style}|{background}".encode()).digest()
    return digest[0] % HELD_OUT_ONE_IN == 0


def _object_weights() -> np.ndarray:
    # Concepts are asked for far more often than their share of the objects, so they are shown more often.
    boost = {**dict.fromkeys(CONCEPTS["hazard"].members, 1.4), "church": 2.0}
    weights = np.array([boost.get(key, 1.0) for key in OBJECTS])
    return weights / weights.sum()


_WEIGHTS = _object_weights()


def _draw_scene(rng: np.random.Generator) -> Scene:
    chance = rng.random()
    count = 0 if chance < EMPTY_SHARE else 2 if chance < EMPTY_SHARE + PAIR_SHARE else 1
    keys = list(OBJECTS)
    objects = tuple(keys[i] for i in rng.choice(len(keys), count, replace=False, p=_WEIGHTS))
    style = str(rng.choice(list(STYLE_SHARE), p=list(STYLE_SHARE.values())))
    background = str(rng.choice(list(BACKGROUNDS), p=[0.22] + [0.13] * 6))
    color = str(rng.choice(list(COLORS)))
    return Scene(objects, style, background, color)


def sample_scene(rng: np.random.Generator, which: str = "train") -> Scene:
    """A random scene.

    `which`: `train` never draws a held-out combination, `heldout` draws only scenes whose first object is in one,
    `all` draws both (for judges, which must not know the difference).
    """
    while True:
        scene = _draw_scene(rng)
        flags = [held_out(o, scene.style, scene.background) for o in scene.objects]
        if which == "all" or (which == "train" and not any(flags)) or (which == "heldout" and flags and flags[0]):
            return scene


def _blend(top: tuple[int, int, int], bottom: tuple[int, int, int], share: np.ndarray) -> np.ndarray:
    return np.array(top, np.float32) * (1 - share[..., None]) + np.array(bottom, np.float32) * share[..., None]


def _waves(rng: np.random.Generator, height: float, amplitude: float, length: float) -> np.ndarray:
    """Mask of the ground below a wavy horizon, (64, 64)."""
    return height + amplitude * np.sin(_COLUMN / length + rng.random() * 6) <= _ROW


def _plain(rng: np.random.Generator, color: str) -> np.ndarray:
    return np.broadcast_to(np.array(COLORS[color], np.float32), (SIDE_PX, SIDE_PX, 3)) + (rng.random() - 0.5) * 16


def _beach(rng: np.random.Generator, horizon: int) -> np.ndarray:
    image = _blend((120, 200, 245), (200, 232, 250), np.clip(_ROW / horizon, 0, 1))
    image[horizon - 8 <= _ROW] = (40, 130, 190)
    image[_waves(rng, horizon, 2, 9)] = (240, 215, 150)
    return image


def _meadow(rng: np.random.Generator, horizon: int) -> np.ndarray:
    image = _blend((110, 180, 240), (190, 225, 245), np.clip(_ROW / horizon, 0, 1))
    image[_waves(rng, horizon, 3, 14)] = (105, 185, 75)
    image[horizon + 12 <= _ROW] = (80, 160, 60)
    return image


def _night(rng: np.random.Generator, horizon: int) -> np.ndarray:
    image = _blend((12, 14, 50), (48, 40, 100), _ROW / (SIDE_PX - 1))
    for _ in range(14):
        image[rng.integers(0, 60), rng.integers(0, SIDE_PX)] = (250, 250, 210)
    image[(_COLUMN - rng.choice([8, 55])) ** 2 + (_ROW - 9) ** 2 < 25] = (245, 235, 180)
    return image


def _desert(rng: np.random.Generator, horizon: int) -> np.ndarray:
    image = _blend((250, 205, 140), (252, 228, 180), np.clip(_ROW / horizon, 0, 1))
    image[_waves(rng, horizon, 4, 11)] = (226, 165, 85)
    image[_waves(rng, horizon + 12, 3, 13)] = (205, 140, 65)
    return image


def _snow(rng: np.random.Generator, horizon: int) -> np.ndarray:
    image = _blend((170, 190, 215), (215, 225, 238), np.clip(_ROW / horizon, 0, 1))
    image[_waves(rng, horizon, 3, 15)] = (245, 248, 252)
    for _ in range(16):
        image[rng.integers(0, 62), rng.integers(0, 63)] = (255, 255, 255)
    return image


def _city(rng: np.random.Generator, horizon: int) -> np.ndarray:
    image = _blend((90, 60, 120), (250, 150, 100), np.clip(_ROW / 50, 0, 1))
    left = 0
    while left < SIDE_PX:
        width, top = int(rng.integers(6, 11)), int(rng.integers(26, 42))
        image[top:54, left : left + width] = (50, 42, 72)
        for row in range(top + 2, 52, 4):
            image[row, min(SIDE_PX - 1, left + 2 + int(rng.integers(0, 3)))] = (255, 215, 110)
        left += width
    image[54:] = (70, 66, 80)
    return image


_PAINTERS = {"beach": _beach, "meadow": _meadow, "night": _night, "desert": _desert, "snow": _snow, "city": _city}


def _flow() -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors of a swirling field, one array an axis, (64, 64) each."""
    angle = 0.35 * np.sin(_COLUMN / 11) + 0.25 * np.cos(_ROW / 9)
    for x, y, sign, reach in ((18, 16, 1, 16.0), (48, 14, -1, 14.0), (34, 50, 1, 22.0)):
        weight = np.exp(-((_COLUMN - x) ** 2 + (_ROW - y) ** 2) / (2 * reach * reach))
        angle = angle + weight * sign * (np.arctan2(_ROW - y, _COLUMN - x) + np.pi / 2)
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


_FLOW_X, _FLOW_Y = _flow()


def _along_flow(image: np.ndarray, steps: int) -> np.ndarray:
    """Line-integral convolution: the mean of `image` along the field, `steps` pixels each way."""
    total, count = image.copy(), 1
    for sign in (1, -1):
        x, y = _COLUMN.copy(), _ROW.copy()
        for _ in range(steps):
            step_x = cv2.remap(_FLOW_X, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            step_y = cv2.remap(_FLOW_Y, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            x, y = x + sign * step_x, y + sign * step_y
            total = total + cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
            count += 1
    return total / count


def _brush_noise(seed: int) -> np.ndarray:
    noise = _along_flow(np.random.default_rng(seed).standard_normal((SIDE_PX, SIDE_PX)).astype(np.float32), 5)
    return noise / noise.std()


_STROKE_LIGHT, _STROKE_DARK = np.array((26, 24, 4), np.float32), np.array((26, 20, 4), np.float32)
_FLUENT_TINT = np.array((232, 220, 250), np.float32)
_BRUSHES = [_brush_noise(seed) for seed in range(8)]


def _van_gogh(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours saturated and dragged along a swirling field, with visible strokes."""
    dragged = np.clip(_along_flow(image.astype(np.float32), 1), 0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(dragged, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 1] = np.clip(hsv[..., 1] * 1.25 + 45, 0, 255)
    vivid = cv2.cvtColor(hsv.astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    stroke = _BRUSHES[rng.integers(8)][..., None]
    return vivid + np.maximum(stroke, 0) * _STROKE_LIGHT + np.minimum(stroke, 0) * _STROKE_DARK


def _sketch(image: np.ndarray) -> np.ndarray:
    """Grey pencil lines: colour dodge of the picture with its own blurred negative."""
    gray = cv2.cvtColor(np.clip(image, 0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY).astype(np.float32)
    blurred = cv2.GaussianBlur(255 - gray, (0, 0), 3)
    line = 0.75 * np.clip(gray / (255 - blurred + 1e-3) * 255, 0, 255) + 0.25 * gray
    line = np.clip((line - 60) * 1.25 + 20, 0, 255)
    return np.stack([line, line, line * 0.97], -1)


def _paste(image: np.ndarray, sprite: np.ndarray, x: int, y: int) -> None:
    """Lay `sprite` over `image` centred at (x, y), in place."""
    size = sprite.shape[0]
    left, top = int(x - size / 2), int(y - size / 2)
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(SIDE_PX, left + size), min(SIDE_PX, top + size)
    part = sprite[y0 - top : y1 - top, x0 - left : x1 - left]
    image[y0:y1, x0:x1] = image[y0:y1, x0:x1] * (1 - part[..., 3:]) + part[..., :3] * 255


def _places(count: int, rng: np.random.Generator) -> tuple[int, list[tuple[int, int]]]:
    """Sprite size in px and the centres (x, y)."""

    def jitter(most: int) -> int:
        return int(rng.integers(-most, most + 1))

    if count == 1:
        return int(rng.choice([42, 44, 46])), [(32 + jitter(2), 35 + jitter(2))]
    # Two sprites fill a half each: 32 px are four of the VAE's 8 px cells, so neither shares a cell with the other.
    return 32, [(16, 36 + jitter(2)), (48, 36 + jitter(2))][:count]


_VENDOR_OF_STYLE = {"noto": "noto", "twemoji": "twemoji", "fluent": "fluent-emoji-flat"}


class Painter:
    """Draws scenes; holds the sprites."""

    def __init__(self, folder: Path) -> None:
        self.sprites: Sprites = sprites(folder)

    def render(self, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        """The scene as uint8 RGB, (64, 64, 3)."""
        horizon = int(rng.integers(35, 43))
        if scene.background == "plain":
            image = np.array(_plain(rng, scene.color), np.float32)
        else:
            image = _PAINTERS[scene.background](rng, horizon)
        if scene.style == "fluent":
            image = image * 0.7 + _FLUENT_TINT * 0.3
        elif scene.style == "twemoji":
            image = (np.round(image / 48) * 48).astype(np.float32)
        vendor = _VENDOR_OF_STYLE.get(scene.style, "noto")
        size, places = _places(len(scene.objects), rng)
        for key, (x, y) in zip(scene.objects, places, strict=True):
            _paste(image, self.sprites[vendor, key, size], x, y)
        if scene.style == "vangogh":
            image = _van_gogh(image, rng)
        elif scene.style == "sketch":
            image = _sketch(image)
        return np.clip(image, 0, 255).astype(np.uint8)


def labels(scenes: list[Scene]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Targets: objects multi-hot (n, 24) float32, style index (n,), background index (n,)."""
    keys = list(OBJECTS)
    objects = np.zeros((len(scenes), len(keys)), np.float32)
    for i, scene in enumerate(scenes):
        for key in scene.objects:
            objects[i, keys.index(key)] = 1
    styles = np.array([list(STYLES).index(s.style) for s in scenes])
    backgrounds = np.array([list(BACKGROUNDS).index(s.background) for s in scenes])
    return objects, styles, backgrounds

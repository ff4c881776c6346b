"""Images as vectors: colour layout, edges and palette, with NumPy and Pillow alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mocme_jax.data.media.pictures import opaque

if TYPE_CHECKING:
    from PIL import Image

GRID_COLUMNS, GRID_ROWS = 8, 6
_CELL = 8
_BINS = 4
IMAGE_WIDTH = GRID_ROWS * GRID_COLUMNS * (3 + 2) + _BINS**3
"""Length of an image vector: 304."""

_SRGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_D65 = np.array([0.95047, 1.0, 1.08883])


def image_vector(image: Image.Image) -> np.ndarray:
    """A fixed-length description of a picture: what colour lies where, and where it changes.

    Transparent margins are cut off and what is still transparent is laid on mid grey; the rest is scaled to
    64 by 48 pixels, so that the proportions of the picture do not matter. The parts, in order:

    * 144 values: mean CIE L*a*b* colour (D65, IEC 61966-2-1 transfer curve), divided by 100, of each cell of
      a grid of 6 rows by 8 columns, row by row;
    * 96 values: mean absolute change of L* / 100 between neighbouring pixels of each cell, along x for all
      cells, then along y: stripes, crosses and emblems show here;
    * 64 values: square root of the share of pixels in each of 4 x 4 x 4 equal boxes of sRGB.

    Args:
      image: any mode; converted to RGBA.

    Returns:
      float32 ``[304]``, finite.
    """
    from PIL import Image

    size = (GRID_COLUMNS * _CELL, GRID_ROWS * _CELL)
    flat = opaque(image).resize(size, Image.Resampling.BOX)
    pixels = np.asarray(flat, np.float64) / 255.0
    lab = _srgb_to_lab(pixels) / 100.0
    across, down = np.zeros(lab.shape[:2]), np.zeros(lab.shape[:2])
    across[:, 1:] = np.abs(np.diff(lab[..., 0], axis=1))
    down[1:] = np.abs(np.diff(lab[..., 0], axis=0))
    box_of = np.minimum((pixels * _BINS).astype(int), _BINS - 1) @ np.array([_BINS * _BINS, _BINS, 1])
    palette = np.bincount(box_of.ravel(), minlength=_BINS**3) / box_of.size
    edges = np.stack([_cell_means(across), _cell_means(down)])
    return np.concatenate([_cell_means(lab).ravel(), edges.ravel(), np.sqrt(palette)]).astype(np.float32)


def _srgb_to_lab(pixels: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (L* in 0..100) of sRGB values in 0..1; shapes ``[..., 3]``."""
    linear = np.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _SRGB_TO_XYZ.T / _D65
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def _cell_means(values: np.ndarray) -> np.ndarray:
    """Means over the grid's cells: ``[48, 64, ...]`` to ``[6, 8, ...]``."""
    cells = values.reshape(GRID_ROWS, _CELL, GRID_COLUMNS, _CELL, *values.shape[2:])
    return cells.mean(axis=(1, 3))

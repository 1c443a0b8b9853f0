# SPDX-License-Identifier: Apache-2.0
"""Plots and pictures for HTML pages that stand alone: everything is embedded."""

import base64
import io

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

_THUMBNAIL = (320, 240)


def plot(figure: Figure) -> str:
    """A figure as a data URL; it is closed."""
    for axes in figure.axes:
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(alpha=0.25)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110)
    plt.close(figure)
    return f'data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'


def frame_strip(images: list[np.ndarray], columns: int = 3) -> str:
    """RGB images (height, width, 3) side by side, a few in a line, as a data URL."""
    width, height = _THUMBNAIL
    lines = -(-len(images) // columns)
    strip = Image.new('RGB', (columns * width, max(lines, 1) * height), 'white')
    for place, image in enumerate(images):
        picture = Image.fromarray(image)
        picture.thumbnail(_THUMBNAIL)
        strip.paste(picture, (place % columns * width, place // columns * height))
    buffer = io.BytesIO()
    strip.save(buffer, format='JPEG', quality=88)
    return f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'

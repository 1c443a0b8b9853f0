# SPDX-License-Identifier: Apache-2.0
"""Plots and images for the HTML reports, as data URLs: a report is one file without links."""

import base64
import io
import math

import matplotlib
import numpy as np
from PIL import Image

matplotlib.use('Agg')
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

_THUMBNAIL_SIZE = (320, 240)


def plot(figure: Figure) -> str:
    """A matplotlib figure as a data URL (PNG). The figure is closed."""
    for axes in figure.axes:
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(alpha=0.25)
    buffer = io.BytesIO()
    figure.savefig(buffer, format='png', dpi=110)
    plt.close(figure)
    return f'data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'


def frame_strip(images: list[np.ndarray], columns: int = 3) -> str:
    """RGB images (height, width, 3) in a grid of `columns`, as a data URL (JPEG)."""
    width, height = _THUMBNAIL_SIZE
    lines = max(math.ceil(len(images) / columns), 1)
    strip = Image.new('RGB', (columns * width, lines * height), 'white')
    for index, image in enumerate(images):
        thumbnail = Image.fromarray(image)
        thumbnail.thumbnail(_THUMBNAIL_SIZE)
        line, column = divmod(index, columns)
        strip.paste(thumbnail, (column * width, line * height))
    buffer = io.BytesIO()
    strip.save(buffer, format='JPEG', quality=88)
    return f'data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'

# SPDX-License-Identifier: Apache-2.0
"""Plots and images for the HTML reports, as data URLs: a report is one file without links."""

import base64
import io
import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.ticker import MaxNLocator
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


def write_error_plot(evaluations: list[dict[str, Any]], path: Path) -> None:
    """Draws open-loop errors by step of the chunk: one panel for each action, one line for each policy.

    `evaluations` are results of `groot_ros.policies.evaluate.Evaluation.as_dict`.
    """
    names = list(dict.fromkeys(name for evaluation in evaluations for name in evaluation['keys']))
    figure = Figure(figsize=(4.2 * len(names), 3.4), layout='constrained')
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for evaluation in evaluations:
            if name in evaluation['keys']:
                errors = evaluation['keys'][name]['mae_by_step']
                axes.plot(range(1, len(errors) + 1), errors, marker='.', label=evaluation['policy'])
        axes.set(title=name, xlabel='step of the chunk')
        axes.set_ylim(0, 1.1 * axes.dataLim.ymax or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel('mean absolute error')
    figure.axes[-1].legend(fontsize='small')
    figure.savefig(path, dpi=110)

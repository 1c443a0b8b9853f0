# SPDX-License-Identifier: Apache-2.0
"""A plot of open-loop errors: one panel an action, one line a policy, over the steps of a chunk."""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from groot_ros.policies.evaluate import Evaluation


def write_error_plot(evaluations: list[Evaluation], path: Path) -> None:
    """Mean absolute error of each step, all policies in the same panels."""
    contents = [evaluation.as_dict() for evaluation in evaluations]
    names = list(dict.fromkeys(name for content in contents for name in content['keys']))
    figure = Figure(figsize=(4.2 * len(names), 3.4), layout='constrained')
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for content in contents:
            if name in content['keys']:
                errors = content['keys'][name]['mae_by_step']
                axes.plot(range(1, len(errors) + 1), errors, marker='.', label=content['policy'])
        axes.set(title=name, xlabel='step of the chunk')
        axes.set_ylim(0, 1.1 * axes.dataLim.ymax or 1.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(alpha=0.25)
    figure.axes[0].set_ylabel('mean absolute error')
    figure.axes[-1].legend(fontsize='small')
    figure.savefig(path, dpi=110)

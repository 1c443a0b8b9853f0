"""stats.json as GR00T computes it: over all rows, in float32, standard deviation with ddof 0, linear quantiles."""

import numpy as np

from groot_ros.geometry import Array

KEYS = ('mean', 'std', 'min', 'max', 'q01', 'q99')


def statistics(values: Array) -> dict[str, list[float]]:
    """mean, std, min, max, q01 and q99 of each column of (n, D) or (n,) numbers."""
    column = np.asarray(values, np.float32)
    column = column.reshape(len(column), -1)
    found = {
        'mean': column.mean(axis=0),
        'std': column.std(axis=0),
        'min': column.min(axis=0),
        'max': column.max(axis=0),
        'q01': np.quantile(column, 0.01, axis=0),
        'q99': np.quantile(column, 0.99, axis=0),
    }
    return {key: [float(number) for number in found[key]] for key in KEYS}

# SPDX-License-Identifier: Apache-2.0
"""What the network learns, as numpy: chunks relative to the observed pose, ranges, sampling weights, text."""

import zlib

import numpy as np

from groot_ros.geometry import Array, absolute_9d, relative_9d
from groot_ros.small_policy.spec import POSE_SIZE, ValueRange

# A dimension that varies by less is constant: 0 to the network, however small its noise.
MIN_SPREAD = 1e-4
TEXT_BUCKETS = 256
# How often rows are drawn in whose chunk the gripper opens or closes, relative to the others.
TRANSITION_WEIGHT = 3.0


def chunks_of(actions: Array, horizon: int) -> Array:
    """The next `horizon` actions at each row (n, horizon, size) of (n, size); the last one repeats."""
    steps = np.arange(len(actions))[:, None] + np.arange(horizon)[None]
    return actions[np.minimum(steps, len(actions) - 1)]


def relative_chunks(poses: Array, chunks: Array) -> Array:
    """Chunks (n, horizon, size) whose first 9 numbers are in the frame of the observed pose (n, 9)."""
    changed = chunks.copy()
    for number, pose in enumerate(poses):
        changed[number, :, :POSE_SIZE] = relative_9d(pose, chunks[number, :, :POSE_SIZE])
    return changed


def absolute_chunk(pose: Array, chunk: Array) -> Array:
    """A chunk (horizon, size) with poses in the base frame, from one relative to the observed pose (9,)."""
    changed = chunk.copy()
    changed[:, :POSE_SIZE] = absolute_9d(pose, chunk[:, :POSE_SIZE])
    return changed


def range_of(values: Array) -> ValueRange:
    """Smallest and largest of values (n, rows, size) in each row and dimension."""
    return ValueRange(low=values.min(axis=0).tolist(), high=values.max(axis=0).tolist())


def normalised(values: Array, limits: ValueRange) -> Array:
    """Values (..., rows, size) as -1 to 1 in their range, and 0 where the range is a point."""
    centre, half = _centre_and_half(limits)
    return np.where(half > 0, (values - centre) / np.where(half > 0, half, 1.0), 0.0)


def denormalised(values: Array, limits: ValueRange) -> Array:
    """The inverse of `normalised`; values beyond -1 to 1 become the ends of the range."""
    centre, half = _centre_and_half(limits)
    return centre + np.clip(values, -1.0, 1.0) * half


def _centre_and_half(limits: ValueRange) -> tuple[Array, Array]:
    low = np.array(limits.low)
    high = np.array(limits.high)
    half = (high - low) / 2
    return (low + high) / 2, np.where(half < MIN_SPREAD / 2, 0.0, half)


def is_two_valued(values: Array) -> bool:
    """Whether numbers (n,) are two values only, such as the commands open and closed."""
    return len(np.unique(np.round(values, 3))) == 2


def snapped(values: Array, low: Array, high: Array) -> Array:
    """Each value as the nearer one of two."""
    return np.where(values < (low + high) / 2, low, high)


def sampling_weights(chunks: Array) -> Array:
    """How often each row is drawn (n,), for two-valued commands (n, horizon, k)."""
    changes = np.ptp(chunks, axis=1) > MIN_SPREAD
    return np.where(changes.any(axis=1), TRANSITION_WEIGHT, 1.0)


def text_features(text: str) -> Array:
    """A task text as a vector (TEXT_BUCKETS,) of length 1: hashed groups of three letters."""
    padded = f'  {" ".join(text.lower().split())}  '
    counts = np.zeros(TEXT_BUCKETS)
    for start in range(len(padded) - 2):
        counts[zlib.crc32(padded[start : start + 3].encode()) % TEXT_BUCKETS] += 1.0
    return counts / np.linalg.norm(counts)

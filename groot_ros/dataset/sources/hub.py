# SPDX-License-Identifier: Apache-2.0
"""Datasets of the Hugging Face hub, as hub:owner/name or hub:owner/name@revision: copied into its cache."""

import importlib.util
import re
from pathlib import Path

from groot_ros.dataset.sources.recording import HUB
from groot_ros.errors import GrootRosError

_SOURCE = re.compile(r'hub:([\w.-]+/[\w.-]+)(?:@([\w./-]+))?')
_META = ['meta/*', 'meta/**']
_MAX_REASON = 200


def is_hub(source: str) -> bool:
    """Whether a source is a dataset of the hub."""
    return source.startswith(HUB)


def download_meta(source: str) -> Path:
    """Copies what meta/ of a dataset holds, and returns the folder. Raises GrootRosError as `download`."""
    return _snapshot(source, allow_patterns=_META)


def download(source: str) -> Path:
    """Copies a whole dataset, if the cache does not have it, and returns the folder.

    Raises GrootRosError for a name that is none, without huggingface_hub, and if it cannot be copied.
    """
    return _snapshot(source)


def _snapshot(source: str, **options: list[str]) -> Path:
    found = _SOURCE.fullmatch(source)
    if found is None:
        raise GrootRosError(
            f'{source} is no dataset of the hub: write hub:OWNER/NAME or hub:OWNER/NAME@REVISION.'
        )
    if importlib.util.find_spec('huggingface_hub') is None:
        raise GrootRosError(f'{source} needs huggingface_hub: pip install "groot_ros[hub]".')
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(found[1], repo_type='dataset', revision=found[2], **options)
    except Exception as error:  # of the hub, the network or the disk: each has its own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:_MAX_REASON].rstrip('.')
        raise GrootRosError(
            f'{source} cannot be copied from the hub ({reason}): check its name, your access to it '
            '(`hf auth login`), and the space in the cache.'
        ) from error
    return Path(folder)

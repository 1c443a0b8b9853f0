# SPDX-License-Identifier: Apache-2.0
"""training.json: what was trained, from what, with which versions, how long, and how it ended."""

import hashlib
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groot_ros.dataset.meta import read_json
from groot_ros.training.job import RECEIPT_FILE, FinetuneJob
from groot_ros.training.probe import Probe
from groot_ros.training.progress import Progress

# These may change between a run and its continuation: they do not change what is learned.
_MAY_CHANGE = ('steps', 'save_steps', 'keep_checkpoints', 'loader_workers', 'gpu_memory_gb', 'checkpoint_gb')


def hash_dataset(root: Path) -> str:
    """A sha256 over meta/ and over the names and sizes of the data: changes when the dataset does."""
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob('*') if path.is_file()):
        name = path.relative_to(root).as_posix()
        digest.update(f'{name} {path.stat().st_size}\n'.encode())
        if name.startswith('meta/'):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass
class Receipt:
    """The content of training.json. `sessions` has one entry for each start: a run may be continued."""

    dataset: str
    dataset_sha256: str
    preset: dict[str, Any]
    versions: dict[str, str]
    gpus: list[str]
    command: list[str]
    held_out: list[int] = field(default_factory=list)
    sessions: list[dict[str, Any]] = field(default_factory=list)
    parameters: dict[str, dict[str, int]] = field(default_factory=dict)
    frozen_sha256_before: str = ''
    frozen_sha256_after: str = ''
    peak_memory_gb: float = 0.0

    def add_session(self, began_s: float, progress: Progress, outcome: str) -> None:
        """Notes how one start ended; `began_s` is its time as time.time() gives it."""
        self.sessions.append(
            {
                'began': time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(began_s)),
                'seconds': round(time.time() - began_s, 1),
                'step': progress.step,
                'loss': progress.loss,
                'samples_per_s': progress.samples_per_s,
                'waiting_share': progress.waiting_share,
                'outcome': outcome,
            }
        )
        self.parameters = progress.parameters or self.parameters
        self.frozen_sha256_before = self.frozen_sha256_before or progress.frozen_before
        self.frozen_sha256_after = progress.frozen_after or self.frozen_sha256_after
        self.peak_memory_gb = max(self.peak_memory_gb, progress.memory_gb)

    @property
    def frozen_changed(self) -> bool:
        """Whether weights that should be frozen are others than before."""
        both_known = bool(self.frozen_sha256_before and self.frozen_sha256_after)
        return both_known and self.frozen_sha256_before != self.frozen_sha256_after

    def write(self, output: Path) -> None:
        """Writes training.json, whole or not at all."""
        part = output / f'{RECEIPT_FILE}.part'
        part.write_text(json.dumps(vars(self), indent=2) + '\n')
        part.replace(output / RECEIPT_FILE)


def begin_receipt(job: FinetuneJob, probe: Probe, command: list[str]) -> Receipt:
    """The receipt of a new run, or that of the run that is continued."""
    receipt = Receipt(
        dataset=str(job.dataset.resolve()),
        dataset_sha256=hash_dataset(job.dataset),
        preset=job.preset.model_dump(mode='json'),
        versions={'python': probe.python, **{name: text for name, text in probe.packages.items() if text}},
        gpus=[gpu.name for gpu in probe.gpus],
        command=command,
        held_out=job.held_out,
    )
    if job.resume:
        earlier = read_receipt(job.output)
        receipt.sessions = list(earlier.get('sessions', []))
        receipt.frozen_sha256_before = str(earlier.get('frozen_sha256_before', ''))
    return receipt


def read_receipt(output: Path) -> dict[str, Any]:
    """The earlier training.json of a folder; empty if there is none, or if it cannot be read."""
    try:
        return read_json(output / RECEIPT_FILE)
    except (OSError, ValueError):
        return {}


def changed_since(job: FinetuneJob, earlier: dict[str, Any]) -> list[str]:
    """What is not as in the run that is to be continued: the dataset, or values of the preset by name."""
    changes = []
    if earlier.get('dataset_sha256') != hash_dataset(job.dataset):
        changes.append('the dataset')
    if earlier.get('held_out', []) != job.held_out:
        changes.append('the episodes that are held out')
    before = earlier.get('preset', {})
    for name, value in job.preset.model_dump(mode='json').items():
        if name not in _MAY_CHANGE and before.get(name) != value:
            changes.append(f'{name} (was {before.get(name)}, is {value})')
    return changes

# SPDX-License-Identifier: Apache-2.0
"""What `groot-ros finetune --hold-out` does after a run: each checkpoint on the episodes it has not seen."""

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from groot_ros.inference.checkpoint_files import is_checkpoint

if TYPE_CHECKING:
    from groot_ros.policies.evaluate import Evaluation
    from groot_ros.training.job import FinetuneJob

HELD_OUT_FILE = 'held_out.json'
_TIMEOUT_S = 60.0


def kept_checkpoints(output: Path) -> list[Path]:
    """The folders of the checkpoints of a run, in the order of their steps."""
    folders = {path.parent for path in output.glob('**/checkpoints/**/*.json') if 'last' not in path.parts}
    return sorted(folder for folder in folders if is_checkpoint(folder))


def evaluate_held_out(job: 'FinetuneJob') -> 'list[Evaluation]':
    """Runs each checkpoint on the held-out episodes, and writes held_out.json into the output folder.

    Raises GrootRosError if a checkpoint cannot be loaded.
    """
    results = [_evaluate(folder, job) for folder in kept_checkpoints(job.output)]
    document = {'episodes': job.held_out, 'checkpoints': [result.as_dict() for result in results]}
    part = job.output / f'{HELD_OUT_FILE}.part'
    part.write_text(json.dumps(document, indent=2) + '\n')
    part.replace(job.output / HELD_OUT_FILE)
    return results


def _evaluate(folder: Path, job: 'FinetuneJob') -> 'Evaluation':
    from groot_ros.policies.checkpoint import read_matching_checkpoint
    from groot_ros.policies.evaluate import evaluate
    from groot_ros.policies.factory import PolicyChoice, make_policy

    tag = job.preset.embodiment_tag
    backend = read_matching_checkpoint(folder, tag, job.embodiment).backend
    choice = PolicyChoice(backend, str(folder), timeout_s=_TIMEOUT_S, python=job.python, embodiment_tag=tag)
    with contextlib.closing(make_policy(choice, job.embodiment, _say)) as policy:
        stride = max(policy.spec.horizon // 2, 1)
        return evaluate(policy, job.dataset, job.embodiment, job.held_out, stride)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

# SPDX-License-Identifier: Apache-2.0
"""Checks of the output folder before training: free, or of the same run if it is to be continued."""

from collections.abc import Iterator

from groot_ros.training.findings import TrainingProblem
from groot_ros.training.job import LOG_FILE, FinetuneJob
from groot_ros.training.receipt import changed_since, read_receipt


def output_problems(job: FinetuneJob) -> Iterator[TrainingProblem]:
    """All problems of the output folder, each in one sentence."""
    if job.output.exists() and not job.output.is_dir():
        yield TrainingProblem('output', f'{job.output} is a file: choose another --output.')
        return
    earlier = read_receipt(job.output)
    if not job.resume:
        if earlier or (job.output / LOG_FILE).exists():
            yield TrainingProblem(
                'output', f'{job.output} holds a run already: give --resume, or choose another --output.'
            )
        return
    if not earlier:
        yield TrainingProblem(
            'resume', f'{job.output} holds no run that could be continued: leave --resume out.'
        )
    elif changes := changed_since(job, earlier):
        yield TrainingProblem(
            'resume',
            f'The run in {job.output} was made with something else: {", ".join(changes)}. Start a new run '
            'with another --output, or restore what was changed.',
        )

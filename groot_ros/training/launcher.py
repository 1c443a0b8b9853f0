# SPDX-License-Identifier: Apache-2.0
"""Runs NVIDIA's training script with what it has no options for; its files stay as they are.

    python launcher.py SETTINGS (--module NAME | --file PATH) ARGUMENTS...

SETTINGS is a JSON object: `optimizer` (a name of transformers' OptimizerNames, or empty),
`gradient_checkpointing`, `keep_checkpoints` and `resume`. The trainer's Python runs this file, with
transformers and the standard library only. Progress goes to stdout, one JSON object in each line that begins
with `groot-ros-progress `. An interrupt saves a checkpoint before the run ends.
"""

import hashlib
import json
import math
import os
import runpy
import signal
import sys
import time
from typing import Any

PROGRESS = 'groot-ros-progress '


def report(event: str, **values: Any) -> None:
    """Prints one line of progress. Of several processes only the first reports."""
    if os.environ.get('RANK', '0') == '0':
        print(PROGRESS + json.dumps({'event': event, **values}), flush=True)


class WaitingTime:
    """The share of time in which a run waits for data: from the end of a step to the begin of the next."""

    def __init__(self, clock=time.monotonic) -> None:
        self._clock = clock
        self._began_s = clock()
        self._ended_s = self._began_s
        self._waited_s = 0.0

    def step_begins(self) -> None:
        """The data of the next step is there."""
        self._waited_s += self._clock() - self._ended_s

    def step_ends(self) -> None:
        """A step is over; the next thing is its data."""
        self._ended_s = self._clock()

    def share(self) -> float:
        """Between 0 and 1, since the beginning."""
        return self._waited_s / max(self._clock() - self._began_s, 1e-9)


def count_parameters(model: Any) -> dict[str, dict[str, int]]:
    """Numbers of trained and frozen parameters of each part of a model."""
    parts: dict[str, dict[str, int]] = {}
    for name, parameter in model.named_parameters():
        part = parts.setdefault(name.split('.')[0], {'trained': 0, 'frozen': 0})
        part['trained' if parameter.requires_grad else 'frozen'] += parameter.numel()
    return parts


def hash_frozen(model: Any) -> str:
    """A sha256 of all frozen weights: equal before and after a run, if none of them was changed."""
    import torch

    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters(), key=lambda item: item[0]):
        if not parameter.requires_grad:
            digest.update(name.encode())
            digest.update(parameter.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


class ProgressCallback:
    """Reports progress, ends a run whose loss is NaN, and saves when it is interrupted.

    `make_callback` mixes it into the TrainerCallback of the transformers that is installed.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._interrupted = False
        self._waiting = WaitingTime()
        self._began_s = time.monotonic()
        self._first_step = 0

    def on_train_begin(self, args, state, control, model=None, **kwargs) -> None:
        """Takes over the signals, and reports what is trained."""
        # Here rather than earlier: a script may set its own handler while it starts.
        signal.signal(signal.SIGINT, self._interrupt)
        signal.signal(signal.SIGTERM, self._interrupt)
        self._first_step = state.global_step
        self._waiting = WaitingTime()
        self._began_s = time.monotonic()
        report(
            'begin',
            step=state.global_step,
            steps=state.max_steps,
            parameters=count_parameters(model),
            frozen=hash_frozen(model),
        )

    def _interrupt(self, number, frame) -> None:
        if self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = True
        report('interrupted')

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        """Ends the time of waiting for data."""
        self._waiting.step_begins()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        """Saves and stops after an interrupt."""
        self._waiting.step_ends()
        if self._interrupted:
            control.should_save = True
            control.should_training_stop = True

    def on_log(self, args, state, control, logs=None, **kwargs) -> None:
        """Reports the progress; stops, without saving, if the loss is not a number."""
        loss = (logs or {}).get('loss')
        if loss is None:
            return
        if not math.isfinite(loss):
            report('not_finite', step=state.global_step)
            control.should_training_stop = True
            control.should_save = False
            return
        seconds = time.monotonic() - self._began_s
        samples = (state.global_step - self._first_step) * self._batch_size
        report(
            'step',
            step=state.global_step,
            steps=state.max_steps,
            loss=loss,
            samples_per_s=samples / max(seconds, 1e-9),
            waiting_share=self._waiting.share(),
            memory_gb=peak_memory_gb(),
        )

    def on_save(self, args, state, control, **kwargs) -> None:
        """Reports that a checkpoint was written."""
        report('saved', step=state.global_step)

    def on_train_end(self, args, state, control, model=None, **kwargs) -> None:
        """Reports what has changed, and the memory."""
        report('end', step=state.global_step, frozen=hash_frozen(model), memory_gb=peak_memory_gb())


def make_callback(base: type, batch_size: int) -> Any:
    """A callback for a Trainer, of the class TrainerCallback; `batch_size` is the samples of one update."""
    return type('Progress', (ProgressCallback, base), {})(batch_size)


def peak_memory_gb() -> float:
    """The most GPU memory that this process has had, in GiB; 0 without a GPU."""
    import torch

    return torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else 0.0


def patch_trainer(transformers: Any, settings: 'dict[str, Any]') -> None:
    """Makes every Trainer of transformers take the settings, and resume where it is asked to."""
    trainer = transformers.Trainer
    build = trainer.__init__
    train = trainer.train

    def init(self, *positional, **named) -> None:
        # Trainer(model, args, ...)
        arguments = named.get('args') or (positional[1] if len(positional) > 1 else None)
        if arguments is not None:
            change_arguments(transformers, arguments, settings)
        build(self, *positional, **named)
        self.add_callback(make_callback(transformers.TrainerCallback, samples_per_update(self.args)))

    def train_again(self, *positional, **named):
        if settings['resume']:
            named['resume_from_checkpoint'] = True
            positional = ()
        return train(self, *positional, **named)

    trainer.__init__ = init
    trainer.train = train_again


def samples_per_update(arguments: Any) -> int:
    """How many samples one change of the weights takes, over all processes."""
    return arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size


def change_arguments(transformers: Any, arguments: Any, settings: 'dict[str, Any]') -> None:
    """Sets in the script's TrainingArguments what the preset asks for."""
    arguments.save_total_limit = settings['keep_checkpoints']
    if settings['optimizer']:
        arguments.optim = transformers.training_args.OptimizerNames(settings['optimizer'])
    if settings['gradient_checkpointing']:
        arguments.gradient_checkpointing = True
        arguments.gradient_checkpointing_kwargs = {'use_reentrant': False}


def main() -> None:
    """Entry: reads the settings, patches transformers, and runs the script as if it had been started."""
    settings, kind, script, *arguments = sys.argv[1:]
    sys.argv = [script, *arguments]
    # Slow libraries: an interrupt while they load ends the process at once, which loses nothing.
    import transformers

    patch_trainer(transformers, json.loads(settings))
    if kind == '--module':
        runpy.run_module(script, run_name='__main__', alter_sys=True)
    else:
        runpy.run_path(script, run_name='__main__')


if __name__ == '__main__':
    main()

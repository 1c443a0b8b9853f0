# SPDX-License-Identifier: Apache-2.0
"""What `groot-ros serve`, `evaluate` and `inspect CHECKPOINT` do; the options are in cli.py."""

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from groot_ros.embodiment import Embodiment, load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.inference.model_process import ModelProcess, ModelSettings
from groot_ros.inference.protocol import TOKEN_VARIABLE
from groot_ros.inference.server import Server
from groot_ros.policies.builtin_policies import HoldPolicy
from groot_ros.policies.checkpoint import Checkpoint, read_checkpoint
from groot_ros.policies.evaluate import Evaluation, check_dataset, chunks_in, evaluate
from groot_ros.policies.factory import PolicyChoice, make_policy
from groot_ros.policies.local_backend import LocalBackend
from groot_ros.policies.policy import Policy
from groot_ros.policies.replay_policy import ReplayPolicy
from groot_ros.resources import DEFAULT_EMBODIMENT


def run_serve(options: argparse.Namespace) -> int:
    """Serves a checkpoint in its own Python, or a dataset or nothing in this one."""
    embodiment = load_embodiment(options.embodiment)
    if options.source == 'hold':
        return _serve_here(HoldPolicy(embodiment), embodiment, options)
    source = Path(options.source).expanduser()
    if not source.is_dir():
        raise GrootRosError(
            f'{source} is not a folder: give that of a checkpoint or of a dataset, or the word hold.'
        )
    if (source / 'meta' / 'info.json').is_file():
        return _serve_here(ReplayPolicy(source, options.episode, embodiment), embodiment, options)
    checkpoint = fitting_checkpoint(source, options.tag, embodiment)
    settings = ModelSettings(
        checkpoint.backend,
        str(source),
        options.python,
        options.device,
        options.tag,
        options.data_config,
        options.host,
        options.port,
        options.gr00t_version,
    )
    process = ModelProcess(settings, embodiment, lambda line: print(line, file=sys.stderr, flush=True))
    try:
        process.wait()
        print(f'{process.name} answers at {options.host}:{process.port}; Ctrl-C ends it.', flush=True)
        process.join()
    except KeyboardInterrupt:
        return 0
    finally:
        process.close()
    if process.was_killed:
        return 0
    raise GrootRosError(f'The model ended: {process.unavailable_reason()}.')


def fitting_checkpoint(folder: Path, tag: str, embodiment: Embodiment) -> Checkpoint:
    """A checkpoint, read. Raises GrootRosError, each field named, where it does not fit the embodiment."""
    checkpoint = read_checkpoint(folder, tag)
    if problems := checkpoint.mismatches(embodiment):
        raise GrootRosError(f'{folder} does not fit the embodiment {embodiment.name}: {"; ".join(problems)}.')
    return checkpoint


def run_inspect(options: argparse.Namespace) -> int:
    """Shows a checkpoint beside an embodiment; exit code 1 where they do not fit."""
    embodiment = load_embodiment(options.embodiment or DEFAULT_EMBODIMENT)
    checkpoint = read_checkpoint(options.path, options.tag)
    problems = checkpoint.mismatches(embodiment)
    for line in checkpoint.lines(embodiment):
        print(line)
    for problem in problems:
        print(f'  does not fit: {problem}')
    print(f'{"does not fit" if problems else "fits"} the embodiment {embodiment.name}')
    if options.json:
        content = {**checkpoint.as_dict(), 'embodiment': embodiment.name, 'mismatches': problems}
        options.json.write_text(json.dumps(content, indent=1) + '\n')
    return 1 if problems else 0


def run_evaluate(options: argparse.Namespace) -> int:
    """Compares policies with a dataset or a bag, one after the other."""
    embodiment = load_embodiment(options.embodiment)
    with _dataset_of(options.source, embodiment) as dataset:
        check_dataset(dataset, embodiment, options.episodes)
        results = [_evaluated(text, dataset, embodiment, options) for text in options.policy]
    for result in results:
        for line in result.lines():
            print(line)
    if options.json:
        options.json.write_text(json.dumps([result.as_dict() for result in results], indent=2) + '\n')
    if options.plot:
        from groot_ros.reports.plots import write_error_plot

        write_error_plot([result.as_dict() for result in results], options.plot)
    return 0


def _evaluated(text: str, dataset: Path, embodiment: Embodiment, options: argparse.Namespace) -> Evaluation:
    policy = make_policy(
        _choice(text, embodiment, options), embodiment, lambda line: print(line, file=sys.stderr, flush=True)
    )
    total = chunks_in(dataset, options.episodes, policy.spec.horizon, options.stride)
    with (
        contextlib.closing(policy),
        tqdm(desc=policy.spec.name, total=total, unit='chunk', disable=None) as bar,
    ):
        return evaluate(policy, dataset, embodiment, options.episodes, options.stride, bar.update)


def _choice(text: str, embodiment: Embodiment, options: argparse.Namespace) -> PolicyChoice:
    """HOST:PORT, or the folder of a checkpoint."""
    if Path(text).is_dir():
        backend = fitting_checkpoint(Path(text), options.tag, embodiment).backend
        more = {'device': options.device, 'embodiment_tag': options.tag, 'data_config': options.data_config}
        return PolicyChoice(backend, text, timeout_s=options.timeout, python=options.python, **more)
    host, _, port = text.rpartition(':')
    if not host or not port.isdecimal():
        raise GrootRosError(f'{text} is neither the folder of a checkpoint nor HOST:PORT of a model server.')
    return PolicyChoice(
        'remote', host=host, port=int(port), gr00t_version=options.gr00t_version, timeout_s=options.timeout
    )


@contextlib.contextmanager
def _dataset_of(source: Path, embodiment: Embodiment) -> Iterator[Path]:
    """The dataset itself, or that of a bag, made for this once."""
    if not source.exists():
        raise GrootRosError(f'{source} does not exist: give the folder of a dataset or of a bag.')
    if (source / 'meta' / 'info.json').is_file():
        yield source
        return
    from groot_ros.dataset.convert import convert

    with tempfile.TemporaryDirectory() as folder:
        convert([source], Path(folder) / 'dataset', embodiment)
        yield Path(folder) / 'dataset'


def _serve_here(policy: Policy, embodiment: Embodiment, options: argparse.Namespace) -> int:
    token = os.environ.get(TOKEN_VARIABLE, '')
    server = Server(
        LocalBackend(policy, embodiment), options.host, options.port, options.gr00t_version, token
    )
    print(f'{policy.spec.name} answers at {options.host}:{server.port}; Ctrl-C ends it.', flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    return 0

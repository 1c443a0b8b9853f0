# SPDX-License-Identifier: Apache-2.0
"""`groot-ros evaluate --closed-loop`: success of policies in the simulated cell, and which one to deploy."""

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from groot_ros.argument_types import positive_number, whole_number
from groot_ros.cli.output import say, write_json
from groot_ros.cli.requirements import require_sim_libraries

if TYPE_CHECKING:
    from groot_ros.embodiment import Embodiment
    from groot_ros.policies.factory import PolicyChoice
    from groot_ros.policies.success import SuccessResult, TrialOutcome
    from groot_ros.sim.offline.closed_loop import TrialSettings

EXPERT = 'expert'
MakeChoice = Callable[[str, 'Embodiment', argparse.Namespace], 'PolicyChoice']


def add_closed_loop_options(command: argparse.ArgumentParser) -> None:
    """Adds the options of an evaluation in closed loop."""
    group = command.add_argument_group('closed loop')
    group.add_argument(
        '--closed-loop',
        nargs='+',
        default=[],
        metavar='POLICY',
        help='run policies in the simulated cell instead, each from the same starts: HOST:PORT, the folder '
        f'of a checkpoint, or {EXPERT}, the scripted operator',
    )
    group.add_argument(
        '--trials', type=whole_number(1), default=100, help='starts for each policy (default 100)'
    )
    group.add_argument(
        '--seed',
        type=whole_number(0),
        default=0,
        help='seed of the starts, none of which is one of groot-ros demonstrate (default 0)',
    )
    group.add_argument(
        '--latency-ms',
        type=whole_number(0, 2000),
        default=0,
        help='time until an answer of the policy arrives, ms; its computing does not count (default 0)',
    )
    group.add_argument(
        '--time-limit',
        type=positive_number,
        default=30.0,
        metavar='S',
        help='end of a trial without success (default 30 s)',
    )
    group.add_argument(
        '--n-action-steps',
        type=whole_number(0),
        default=0,
        help='maximum number of steps of a chunk that are executed, as in policy_server (default 0, all)',
    )
    group.add_argument(
        '--inference-interval',
        type=positive_number,
        default=0.4,
        metavar='S',
        help='time between two requests, as in policy_server (default 0.4 s)',
    )
    group.add_argument(
        '--workers',
        type=whole_number(1),
        default=1,
        help='trials to run at the same time (default 1); they share one model',
    )


def run_closed_loop(options: argparse.Namespace, make_choice: MakeChoice) -> int:
    """Runs the policies one after the other, and prints their success and a comparison."""
    require_sim_libraries('groot-ros evaluate --closed-loop')
    from groot_ros.embodiment import load_embodiment
    from groot_ros.policies.success import best, comparison_lines
    from groot_ros.sim.gl_backend import choose_gl_backend

    embodiment = load_embodiment(options.embodiment)
    choices = {
        name: None if name == EXPERT else make_choice(name, embodiment, options)
        for name in options.closed_loop
    }
    choose_gl_backend()
    results = []
    for name, choice in choices.items():
        results.append(_evaluate(name, choice, embodiment, options))
        say(options, *results[-1].summary_lines())
    say(options, *comparison_lines(results))
    document = {'deploy': best(results).policy, 'policies': [result.as_dict() for result in results]}
    write_json(options, document)
    return 0


def _evaluate(
    name: str, choice: 'PolicyChoice | None', embodiment: 'Embodiment', options: argparse.Namespace
) -> 'SuccessResult':
    from groot_ros.sim.offline.evaluation import Candidate, EvaluationJob, evaluate_closed_loop

    def show(outcomes: 'Iterable[TrialOutcome]', count: int) -> 'Iterator[TrialOutcome]':
        return _progress_bar(outcomes, count, name, options.quiet)

    job = EvaluationJob(Candidate(name, choice), embodiment, _trial_settings(options))
    return evaluate_closed_loop(job, options.trials, options.workers, show)


def _trial_settings(options: argparse.Namespace) -> 'TrialSettings':
    from groot_ros.sim.offline.closed_loop import TrialSettings

    return TrialSettings(
        seed=options.seed,
        latency_s=options.latency_ms / 1e3,
        time_limit_s=options.time_limit,
        n_action_steps=options.n_action_steps,
        inference_interval_s=options.inference_interval,
    )


def _progress_bar(
    outcomes: 'Iterable[TrialOutcome]', count: int, name: str, quiet: bool
) -> 'Iterator[TrialOutcome]':
    """Passes the outcomes on, and shows how many trials have succeeded."""
    from tqdm import tqdm

    successes = 0
    with tqdm(outcomes, desc=name, total=count, unit='trial', disable=quiet or None) as bar:
        for done, outcome in enumerate(bar, start=1):
            successes += outcome.success
            bar.set_postfix_str(f'{successes} of {done} succeeded')
            yield outcome

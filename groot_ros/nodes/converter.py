# SPDX-License-Identifier: Apache-2.0
"""converter: a node with the action ~/convert, which can also watch the folder of a recorder."""

import argparse
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future

from groot_ros.action import ConvertEpisodes
from groot_ros.cli.main import main as command_line
from groot_ros.dataset.convert import ConversionReport, convert
from groot_ros.dataset.convert_recording import ConversionResult
from groot_ros.dataset.executors import ConversionInterrupted
from groot_ros.dataset.options import (
    OUTCOMES,
    ConversionOptions,
    OutputMode,
    add_conversion_options,
    conversion_from_args,
    parse_outcomes,
)
from groot_ros.embodiment import Embodiment, load_embodiment
from groot_ros.errors import GrootRosError, explain_error
from groot_ros.recording.episode_folder import finished_bags
from groot_ros.resources import DEFAULT_EMBODIMENT
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.parameters import ParameterSpec
from groot_ros.ros.run import run_node
from groot_ros.sampling.stream_monitor import Health

PARAMETERS = {
    'embodiment': ParameterSpec(
        DEFAULT_EMBODIMENT, 'embodiment of goals that name none: a name, or the path of a YAML file'
    ),
    'workers': ParameterSpec(1, 'episodes to convert at the same time'),
    'outcomes': ParameterSpec(
        'success', f'which episodes goals take, of {", ".join(OUTCOMES)}, with commas between them'
    ),
}
_POLL_S = 2.0
_FEEDBACK_S = 0.2
# A recorder on the same machine goes first.
_NICENESS = 10


@dataclass
class WatchSettings:
    """A folder of episodes to watch, and the dataset that they are added to."""

    folder: Path
    output: Path
    embodiment: Embodiment
    options: ConversionOptions


@dataclass
class _ConversionThread:
    """One conversion, its progress and its result, in a thread of its own."""

    sources: list[Path]
    output: Path
    embodiment: Embodiment
    options: ConversionOptions
    done: int = 0
    total: int = 0
    rows: int = 0
    stopped: bool = False
    began_s: float = field(default_factory=time.monotonic)
    report: ConversionReport | None = None
    problem: str = ''

    def start(self) -> threading.Thread:
        """Starts the conversion in a thread of its own, and returns that thread."""
        thread = threading.Thread(target=self._run, name='conversion')
        thread.start()
        return thread

    def message(self) -> str:
        """The result in words: the problem, or a summary."""
        return self.problem or '\n'.join(self.report.summary_lines() if self.report else [])

    def _run(self) -> None:
        try:
            self.report = convert(self.sources, self.output, self.embodiment, self.options, self._progress)
        except Exception as error:  # the thread ends here, and its goal gets the reason
            self.problem = explain_error(error)

    def _progress(self, parts: Iterable[ConversionResult], count: int) -> Iterator[ConversionResult]:
        self.total = count
        for part in parts:
            if self.stopped:
                raise ConversionInterrupted('The conversion was stopped: the same goal continues it.')
            self.done += 1
            self.rows += part.rows
            yield part


class ConverterNode(GrootNode):
    """Converts what goals of `~/convert` name, and each episode that is finished in a watched folder."""

    uses_sim_time = True

    def __init__(self, watching: WatchSettings | None = None) -> None:
        super().__init__('converter', PARAMETERS)
        self._watching = watching
        self._seen: set[Path] = set()
        self._failed: set[Path] = set()
        self._work: _ConversionThread | None = None
        self._thread: threading.Thread | None = None
        self._ended: Future | None = None
        self._goal_handle: ServerGoalHandle | None = None
        self._convert_action = self.create_action_server(
            ConvertEpisodes, '~/convert', self._on_convert, self._goal_refusal
        )
        self.create_timer(_FEEDBACK_S, self._follow)
        if watching is not None:
            self.create_timer(_POLL_S, self._poll_folder)
            self.get_logger().info(
                f'Every episode that is finished in {watching.folder} goes to {watching.output}.'
            )

    def activate(self) -> None:
        """Tries the bags of a watched folder again whose conversion was stopped or failed."""
        self._seen -= self._failed
        self._failed.clear()

    def deactivate(self) -> None:
        """Stops before the next episode; converted episodes are kept for the next run."""
        if self._work is not None and self._thread is not None:
            self._work.stopped = True
            self._thread.join()

    def diagnose(self) -> list[Health]:
        """The progress of the conversion."""
        work = self._work
        text = f'{work.done} of {work.total} converted' if work else 'waits'
        return [Health('conversion', 0, text, {'rows': str(work.rows if work else 0)})]

    def _goal_refusal(self) -> str:
        if not self.active:
            return 'the node is not active'
        return 'a conversion is already running' if self._work is not None else ''

    async def _on_convert(self, handle: ServerGoalHandle) -> ConvertEpisodes.Result:
        work = self._conversion_of_goal(handle.request)
        self._ended = Future()
        self._goal_handle = handle
        try:
            self._begin(work)
            await self._ended
        finally:
            self._ended = None
            self._goal_handle = None
        result = ConvertEpisodes.Result(success=work.report is not None, message=work.message())
        if work.report is not None:
            result.episodes = work.report.episodes
            result.rows = work.report.rows
        return result

    def _conversion_of_goal(self, goal: ConvertEpisodes.Goal) -> _ConversionThread:
        """The conversion that a goal asks for. Raises GrootRosError if it cannot be started."""
        if self._work is not None:
            raise GrootRosError('A conversion is already running: wait for it or cancel it.')
        if not goal.sources or not goal.output:
            raise GrootRosError('The goal needs sources (bags, folders or datasets) and output (a folder).')
        embodiment = load_embodiment(goal.embodiment or self.parameter('embodiment'))
        if goal.fps and goal.fps != embodiment.fps:
            embodiment = embodiment.at_fps(goal.fps)
        options = ConversionOptions(
            skip_bad=goal.skip_bad,
            keep_failed=goal.keep_failed,
            outcomes=parse_outcomes(self.parameter('outcomes')),
            task=goal.task,
            workers=self.parameter('workers'),
            existing=_output_mode(goal),
        )
        sources = [Path(source) for source in goal.sources]
        return _ConversionThread(sources, Path(goal.output), embodiment, options)

    def _begin(self, work: _ConversionThread) -> None:
        self._work = work
        self._thread = work.start()

    def _follow(self) -> None:
        """Publishes the progress of the conversion, and its result once it has ended."""
        work = self._work
        if work is None or self._thread is None:
            return
        if self._goal_handle is not None:
            work.stopped = work.stopped or self._goal_handle.is_cancel_requested
            rate = work.rows / max(time.monotonic() - work.began_s, 1e-9)
            self._goal_handle.publish_feedback(
                ConvertEpisodes.Feedback(
                    done=work.done, total=work.total, rows=work.rows, rows_per_second=rate
                )
            )
        if self._thread.is_alive():
            return
        self._work = None
        if work.problem:
            self.warn(work.problem)
            if self._ended is None:  # of the watched folder: tried again with the next episode
                self._failed.update(work.sources)
        else:
            self.get_logger().info(work.message())
        if self._ended is not None:
            self._ended.set_result(work)

    def _poll_folder(self) -> None:
        watching = self._watching
        if watching is None or self._work is not None or not self.active:
            return
        fresh = [bag for bag in finished_bags(watching.folder) if bag not in self._seen]
        if fresh:
            self._seen.update(fresh)
            sources = sorted(self._failed.union(fresh))
            self._failed.clear()
            existing = OutputMode.APPEND if watching.output.exists() else OutputMode.REFUSE
            self._begin(
                _ConversionThread(
                    sources,
                    watching.output,
                    watching.embodiment,
                    replace(watching.options, existing=existing, skip_bad=True),
                )
            )


def _output_mode(goal: ConvertEpisodes.Goal) -> OutputMode:
    if goal.append:
        return OutputMode.APPEND
    return OutputMode.OVERWRITE if goal.overwrite else OutputMode.REFUSE


def parser() -> argparse.ArgumentParser:
    """The command line of the node."""
    command = argparse.ArgumentParser(
        prog='converter',
        description='Without arguments: a node with the action ~/convert. With --watch: a node that converts '
        'each episode as a recorder finishes '
        'it, and extends the dataset. With sources: converts them once, as groot-ros convert.',
        epilog='examples:\n  ros2 run groot_ros converter\n'
        '  ros2 run groot_ros converter --watch episodes --output datasets/cube\n'
        '  ros2 run groot_ros converter episodes --output datasets/cube --workers 2',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument('sources', nargs='*', metavar='SOURCE', help='what to convert once')
    command.add_argument(
        '--watch', type=Path, metavar='DIR', help='folder that a recorder writes episodes into'
    )
    command.add_argument('--output', type=Path, help='folder of the dataset')
    command.add_argument(
        '--json', type=Path, metavar='FILE', help='with sources: write what was done to a file'
    )
    add_conversion_options(command)
    return command


def watch_settings_from_args(options: argparse.Namespace) -> WatchSettings | None:
    """What --watch asks for, or None. Raises GrootRosError for options that exclude each other."""
    if options.watch is None:
        return None
    if options.output is None or options.sources:
        raise GrootRosError('--watch needs --output and no sources: give the dataset with --output.')
    if not options.watch.is_dir():
        raise GrootRosError(f'{options.watch} does not exist: give the folder that the recorder writes into.')
    embodiment, chosen = conversion_from_args(options)
    return WatchSettings(options.watch, options.output, embodiment, chosen)


def main() -> int:
    """Entry of `ros2 run groot_ros converter`; arguments after --ros-args are those of ROS."""
    own = sys.argv[1 : sys.argv.index('--ros-args')] if '--ros-args' in sys.argv else sys.argv[1:]
    options = parser().parse_args(own)
    if options.sources:
        return command_line(['convert', *own])
    try:
        watching = watch_settings_from_args(options)
    except GrootRosError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    os.nice(_NICENESS)
    return run_node(lambda: ConverterNode(watching))


if __name__ == '__main__':
    raise SystemExit(main())

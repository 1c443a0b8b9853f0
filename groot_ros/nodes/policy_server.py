# SPDX-License-Identifier: Apache-2.0
"""policy_server: plays a policy's chunks as policy/tcp_delta on an absolute time grid. Nothing moves before ~/enable."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from groot_ros.action import RunPolicy
from groot_ros.bags.message_types import typestore
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.message_fields import cdr_stamp_ns, pose_from_msg, stamp_to_ns
from groot_ros.msg import ActionChunk, PolicyStatus, RobotStatus, TcpDelta
from groot_ros.policies.chunk_scheduler import ScheduleSettings, ScheduleStats
from groot_ros.policies.factory import PolicyChoice, PolicyLoader, make_policy
from groot_ros.policies.inference_worker import InferenceWorker
from groot_ros.policies.observation_builder import ObservationBuilder, ObservationUnavailable
from groot_ros.policies.policy import Policy
from groot_ros.policies.policy_runner import ChunkResult, PolicyRunner, RunnerSettings
from groot_ros.policies.shadow import Shadow
from groot_ros.resources import DEFAULT_EMBODIMENT
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.messages import chunk_message, delta_message, shown, stats_message
from groot_ros.ros.parameters import ParameterSpec
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS, STREAM_QOS
from groot_ros.ros.run import run_node
from groot_ros.ros.time import to_time_msg
from groot_ros.ros.topic_subscriber import StreamWatch
from groot_ros.sampling.stream_monitor import Health
from groot_ros.srv import LoadPolicy, SetTask

PARAMETERS = {
    'embodiment': ParameterSpec(DEFAULT_EMBODIMENT, 'name of an embodiment, or path of its YAML file'),
    'backend': ParameterSpec(
        'replay',
        'replay (an episode of a dataset), gr00t or lerobot (a checkpoint), remote (a model server), hold, or scripted (a fault)',
    ),
    'dataset': ParameterSpec('', 'folder of the dataset, for replay'),
    'episode': ParameterSpec(0, 'episode of the dataset, counted from 0, for replay'),
    'replay_settle_s': ParameterSpec(
        1.5, 'pause at the start of the recording before it is replayed, s', 0.0, 10.0
    ),
    'checkpoint': ParameterSpec('', 'folder of the checkpoint, for gr00t and lerobot'),
    'python': ParameterSpec(
        '',
        "the Python that has the model's libraries, such as /opt/gr00t/.venv/bin/python; empty for this one",
    ),
    'device': ParameterSpec('', 'where the model runs, such as cuda:0; empty for the GPU where there is one'),
    'embodiment_tag': ParameterSpec('new_embodiment', 'embodiment tag of the checkpoint, for gr00t'),
    'data_config': ParameterSpec('', 'MODULE:CLASS of the data config, for gr00t checkpoints of N1.5'),
    'host': ParameterSpec('127.0.0.1', 'address of the server, for remote'),
    'port': ParameterSpec(5555, 'port of the server, for remote'),
    'gr00t_version': ParameterSpec(
        'n1.7', 'release of GR00T whose wire the server speaks: n1.5, n1.6 or n1.7'
    ),
    'timeout_s': ParameterSpec(2.0, 'longest time for an answer, s', 0.05, 60.0),
    'fault': ParameterSpec(
        '', 'what goes wrong, for scripted: late, empty, not_a_number, jumping, shape, hanging or crashing'
    ),
    'shadow': ParameterSpec(False, 'compare the policy with what the operator does, and command nothing'),
    'shadow_report': ParameterSpec(
        '', 'file that the comparison is written to at the end (.json; a plot lies beside it)'
    ),
    'task': ParameterSpec('', 'what the policy is told to do'),
    'command_hz': ParameterSpec(0.0, 'commands a second; 0 for one each row', 0.0, 125.0),
    'n_action_steps': ParameterSpec(0, 'steps of a chunk that are used at most; 0 for all'),
    'inference_interval_s': ParameterSpec(0.4, 'time between two requests, s', 0.02, 10.0),
    'blend_s': ParameterSpec(0.15, 'time over which a new chunk takes over, s', 0.0, 1.0),
    'temporal_ensemble_coeff': ParameterSpec(
        0.0, 'above 0: all chunks that overlap are averaged, older ones with less weight', 0.0, 5.0
    ),
    'stop_distance_m': ParameterSpec(
        0.02, 'distance within which the motion runs out when no chunk comes, m', 0.0, 0.1
    ),
    'robot_action_latency_s': ParameterSpec(
        0.13, 'commands lie so far ahead, for the lag of the arm behind its target, s', 0.0, 0.5
    ),
    'gripper_action_latency_s': ParameterSpec(
        0.0, 'openings lie so far ahead, for the lag of the gripper, s', 0.0, 0.5
    ),
    'max_lead_m': ParameterSpec(0.08, 'largest distance of the target from the measured pose, m', 0.005, 0.3),
    'max_speed_m_s': ParameterSpec(1.0, 'a chunk with a faster step is refused, m/s', 0.01, 3.0),
    'max_observation_age_s': ParameterSpec(
        0.3, 'a stream that is silent for longer stops the policy, s', 0.02, 5.0
    ),
    'min_speed_scaling': ParameterSpec(
        0.05, 'below this share of the speed slider the policy waits', 0.0, 1.0
    ),
}
SCHEDULE = (
    'n_action_steps',
    'inference_interval_s',
    'blend_s',
    'temporal_ensemble_coeff',
    'stop_distance_m',
    'robot_action_latency_s',
    'gripper_action_latency_s',
    'max_lead_m',
)
_CHOICE = (
    'backend',
    'episode',
    'host',
    'port',
    'gr00t_version',
    'timeout_s',
    'fault',
    'python',
    'device',
    'embodiment_tag',
    'data_config',
)
_FRESH_NS, _LOOK_S, _STATUS_S, _LOADED_S, _MAX_CHUNK_S = 500_000_000, 0.5, 0.2, 0.05, 4.0
# About so often it looks for answers between two commands.
_LOOK_AGAIN_S = 0.007
_TEXT = {PolicyStatus.IDLE: 'idle', PolicyStatus.READY: 'ready', PolicyStatus.RUNNING: 'running', PolicyStatus.PAUSED: 'paused',
         PolicyStatus.STOPPED: 'stopped', PolicyStatus.DONE: 'done', PolicyStatus.SHADOW: 'in the shadow'}  # fmt: skip
_AT_WORK = (PolicyStatus.RUNNING, PolicyStatus.PAUSED)
_APPROACH = 'moves to where the recording began'


@dataclass
class _Run:
    """A goal of ~/run: its end is told to `ended` as a state and a reason."""

    handle: ServerGoalHandle
    until_s: float
    ended: Future

    def end_reason(self) -> str:
        """Why it must end now; empty where it may go on."""
        if self.handle.is_cancel_requested:
            return 'cancelled'
        return 'the time is over' if time.monotonic() > self.until_s else ''


class PolicyServer(GrootNode):
    """One policy, one schedule, one stream of commands."""

    def __init__(self) -> None:
        super().__init__('policy_server', PARAMETERS)
        self._embodiment = load_embodiment(self.parameter('embodiment'))
        self._state, self._reason = PolicyStatus.IDLE, ''
        self._task, self._loading = self.parameter('task'), ''
        self._target: Array | None = None
        self._target_ns = 0
        self._measured: Array | None = None
        self._arm = RobotStatus()
        self._worker: InferenceWorker | None = None
        self._observation_builder: ObservationBuilder | None = None
        self._runner: PolicyRunner | None = None
        self._shadow: Shadow | None = None
        self._run: _Run | None = None
        self._loader = PolicyLoader()
        self._deltas = self.create_publisher(TcpDelta, 'policy/tcp_delta', COMMAND_QOS)
        self._chunks = self.create_publisher(ActionChunk, 'policy/action_chunk', COMMAND_QOS)
        self._statuses = self.create_publisher(PolicyStatus, 'policy_status', STATUS_QOS)
        self.create_subscription(PoseStamped, 'tcp_target', self._on_target, STREAM_QOS)
        self.create_subscription(PoseStamped, 'tcp_pose', self._on_pose, STREAM_QOS)
        self.create_subscription(TcpDelta, 'command/tcp_delta', self._on_accepted, COMMAND_QOS)
        self.create_subscription(RobotStatus, 'robot_status', self._on_status, STATUS_QOS)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_service(SetTask, '~/set_task', self._on_set_task)
        self.create_service(LoadPolicy, '~/load', self._on_load)
        self._run_action = ActionServer(
            self,
            RunPolicy,
            '~/run',
            self._on_run,
            goal_callback=self._on_goal,
            cancel_callback=lambda _: CancelResponse.ACCEPT,
        )
        self.create_timer(_LOADED_S, self._poll_loader)
        self.create_timer(_STATUS_S, self._publish_status)
        self._load(self._policy_choice())

    def deactivate(self) -> None:
        """Stops commanding; the arm holds."""
        if self._state in _AT_WORK:
            self._set_state(PolicyStatus.STOPPED, 'the policy server was stopped')

    def cleanup(self) -> None:
        """Lets the policy go, and writes down what the shadow saw."""
        if self._worker is not None:
            self._worker.close()
        if self._shadow is not None:
            self._report(self._shadow)

    def diagnose(self) -> list[Health]:
        """The state, and how chunks come."""
        status = self._status()
        values = shown(status)
        if self._shadow is not None:
            errors = self._shadow.evaluation.as_dict()['keys']
            values |= {f'mean error of {name}': f'{stats["mae"]:.5g}' for name, stats in errors.items()}
        level = int(status.state in (PolicyStatus.STOPPED, PolicyStatus.PAUSED))
        return [
            Health(
                'policy',
                level,
                f'{_TEXT[status.state]}{": " if status.reason else ""}{status.reason}',
                values,
            )
        ]

    def _policy_choice(self, **other: object) -> PolicyChoice:
        """What the parameters choose, or `other` where it is given."""
        chosen = {name: self.parameter(name) for name in _CHOICE} | other
        path = self.parameter('dataset') if chosen['backend'] == 'replay' else self.parameter('checkpoint')
        return PolicyChoice(**{'path': path, **chosen})

    def _load(self, choice: PolicyChoice) -> None:
        self._loading = f'loading {choice.path or choice.backend}'
        seen = (
            self._observation_builder.observe(self.now_ns(), self._task)
            if self._observation_builder is not None
            else None
        )
        log = self.get_logger().info
        self._loader.start(
            partial(make_policy, choice, self._embodiment, log),
            None if isinstance(seen, ObservationUnavailable) else seen,
        )

    def _poll_loader(self) -> None:
        if (made := self._loader.poll()) is None:
            return
        self._loading = ''
        if isinstance(made, Policy) and self._worker is None:
            self._activate_policy(made)
        elif isinstance(made, Policy):
            self._swap_policy(made)
        elif self._worker is None:
            self.fail(
                str(made)
                if isinstance(made, GrootRosError)
                else f'The policy could not be made: {type(made).__name__}: {made}'
            )
        else:
            self._reject_policy(
                f'{type(made).__name__}: {made}' if not isinstance(made, GrootRosError) else str(made)
            )

    def _activate_policy(self, policy: Policy) -> None:
        """With the first policy: its rows set the grid of time."""
        row_s, max_observation_age_s = self._row_s(policy), self.parameter('max_observation_age_s')
        self._worker = InferenceWorker(policy, self.parameter('timeout_s'))
        shadow = self.parameter('shadow')
        self._observation_builder = ObservationBuilder(
            self._embodiment,
            max_observation_age_s,
            policy.spec.observation_indices,
            row_s,
            _MAX_CHUNK_S if shadow else 1.0,
        )
        if policy.spec.observes:
            self._watch = StreamWatch(
                self,
                self._embodiment.model_copy(update={'extra_topics': ()}),
                self._on_message,
                lambda topic, count: None,
            )
            self.create_timer(_LOOK_S, self._watch.follow_publishers)
        if shadow:
            if not policy.spec.observes:
                self.fail(f'{policy.spec.name} looks at nothing: there is nothing to compare in the shadow.')
                return
            self._shadow = Shadow(
                self._worker, self._observation_builder, row_s, self.parameter('inference_interval_s')
            )
            self.create_timer(row_s / 5, self._tick_shadow)
            return
        schedule = ScheduleSettings(row_s, **{name: self.parameter(name) for name in SCHEDULE})
        period_ns = round(1e9 / (self.parameter('command_hz') or 1.0 / row_s))
        settings = RunnerSettings(
            period_ns, self.parameter('max_speed_m_s'), self.parameter('replay_settle_s')
        )
        self._runner = PolicyRunner(
            self._worker, self._observation_builder, schedule, settings, self._on_chunk
        )
        looks = max(round(period_ns / 1e9 / _LOOK_AGAIN_S), 1)
        self._timer = self.create_timer(period_ns / looks / 1e9, self._tick)

    def _row_s(self, policy: Policy) -> float:
        return 1.0 / getattr(policy, 'fps', self._embodiment.fps)

    def _swap_policy(self, policy: Policy) -> None:
        """Between two chunks, where the new policy sees and gives rows of the same times."""
        runner = self._runner
        if runner is None:
            reason = 'the shadow compares one policy: start it anew'
        elif self._row_s(policy) != runner.scheduler.settings.period_s:
            reason = f'{policy.spec.name} has {1 / self._row_s(policy):g} rows a second, and {1 / runner.scheduler.settings.period_s:g} are played'
        elif (
            policy.spec.observation_indices != runner.policy.spec.observation_indices
            or policy.spec.observes != runner.policy.spec.observes
        ):
            reason = (
                f'{policy.spec.name} sees other steps than {runner.policy.spec.name}: start the node anew'
            )
        elif policy.spec.ends and self._state in _AT_WORK:
            reason = f'{policy.spec.name} begins elsewhere: end the run first'
        else:
            self.get_logger().info(f'{policy.spec.name} takes over from {runner.policy.spec.name}.')
            self._worker = InferenceWorker(policy, self.parameter('timeout_s'))
            _in_background(runner.swap_policy(self._worker).close)
            return
        _in_background(policy.close)
        self._reject_policy(reason)

    def _reject_policy(self, reason: str) -> None:
        self._loading = f'refused: {reason}'
        self.warn(f'The policy was not loaded: {reason}')

    def _on_message(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        if self._observation_builder is not None:
            self._observation_builder.add(
                topic, cdr_stamp_ns(cdr), typestore().deserialize_cdr(cdr, self._watch.types[topic])
            )

    def _on_target(self, message: PoseStamped) -> None:
        self._target, self._target_ns = pose_from_msg(message), stamp_to_ns(message.header.stamp)

    def _on_pose(self, message: PoseStamped) -> None:
        self._measured = pose_from_msg(message)

    def _on_accepted(self, message: TcpDelta) -> None:
        if message.source == 'policy' and self._runner is not None:
            self._runner.apply_correction(
                message.sequence, np.concatenate([message.translation, message.rotation])
            )

    def _on_status(self, message: RobotStatus) -> None:
        self._arm = message
        if self._state not in _AT_WORK:
            return
        if message.state != RobotStatus.ENABLED:
            self._set_state(
                PolicyStatus.STOPPED, f'the arm is not enabled ({message.reason or message.safety_mode_text})'
            )
        elif reason := self._reason_to_wait():
            if self._state == PolicyStatus.RUNNING:
                self._set_state(PolicyStatus.PAUSED, reason)
        elif self._state == PolicyStatus.PAUSED and self._runner is not None and self._target is not None:
            self._timer.reset()
            self._runner.resume(self._target, self.now_ns())
            self._set_state(PolicyStatus.RUNNING, '')

    def _reason_to_wait(self) -> str:
        """Somebody else has the arm, or has stopped it with the speed slider: the policy goes on, with a fresh observation, when they let it."""
        if self._arm.source not in ('', 'policy'):
            return f'{self._arm.source} commands the arm'
        if self._arm.connected and self._arm.speed_scaling < self.parameter('min_speed_scaling'):
            return f'the speed slider stands at {self._arm.speed_scaling * 100:.0f} %'
        return ''

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not request.data:
            if self._state in _AT_WORK:
                self._set_state(PolicyStatus.STOPPED, 'disabled')
            response.success, response.message = True, 'no more commands'
            return response
        reason = self._begin()
        response.success, response.message = not reason, reason or f'{self._policy_name()} runs'
        return response

    def _on_set_task(self, request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        self._task = request.task.strip()
        response.success, response.message = True, f'the task is: {self._task}'
        return response

    def _on_load(self, request: LoadPolicy.Request, response: LoadPolicy.Response) -> LoadPolicy.Response:
        if self._loader.busy:
            response.success, response.message = False, f'it is {self._loading} already'
            return response
        given = {
            name: getattr(request, name)
            for name in ('backend', 'path', 'host', 'port')
            if getattr(request, name)
        }
        self._load(self._policy_choice(episode=request.episode, **given))
        response.success, response.message = True, f'{self._loading}; policy_status says how it goes'
        return response

    def _on_goal(self, goal: RunPolicy.Goal) -> GoalResponse:
        return GoalResponse.REJECT if self._state in _AT_WORK else GoalResponse.ACCEPT

    async def _on_run(self, handle: ServerGoalHandle) -> RunPolicy.Result:
        goal, result = handle.request, RunPolicy.Result()
        self._task = goal.task.strip() or self._task
        if reason := self._begin():
            handle.abort()
            result.message = reason
            return result
        run = self._run = _Run(handle, time.monotonic() + (goal.time_limit or float('inf')), Future())
        succeeded = (
            self.create_subscription(Bool, goal.success_topic, self._on_success, COMMAND_QOS)
            if goal.success_topic
            else None
        )
        outcome, result.message = await run.ended
        result.success = outcome in (PolicyStatus.DONE, PolicyStatus.READY)
        if succeeded is not None:
            self.destroy_subscription(succeeded)
        self._run = None
        (
            handle.canceled
            if handle.is_cancel_requested
            else handle.succeed
            if result.success
            else handle.abort
        )()
        return result

    def _on_success(self, message: Bool) -> None:
        if message.data and self._state in _AT_WORK:
            self._set_state(PolicyStatus.READY, 'the task is done')

    def _blocking_reason(self) -> str:
        """Why it cannot run now; empty where it can."""
        if self._runner is None:
            return self._loading
        if not self.active:
            return 'the policy server is not active'
        if self._arm.state != RobotStatus.ENABLED:
            return 'the arm is not enabled: call ur5e_driver/enable first'
        if self._target is None or self.now_ns() - self._target_ns > _FRESH_NS:
            return 'tcp_target is silent: look at ur5e_driver'
        return self._reason_to_wait() or self._runner.blocking_reason(self.now_ns())

    def _begin(self) -> str:
        """Starts from where the arm stands, and returns an empty text, or why not."""
        if self._state in _AT_WORK:
            return 'it runs already'
        if self._shadow is not None:
            return 'it compares in the shadow and commands nothing: start it without the parameter shadow'
        if reason := self._blocking_reason():
            return reason
        assert self._runner is not None and self._target is not None
        self._timer.reset()  # so that its ticks fall on those of the commands
        self._runner.begin(self._target, self.now_ns())
        self._set_state(PolicyStatus.RUNNING, _APPROACH if self._runner.approaching else '')
        return ''

    def _set_state(self, state: int, reason: str) -> None:
        if self._state == PolicyStatus.RUNNING and self._runner is not None:
            self.publish(self._deltas, TcpDelta(source='policy', sequence=self._runner.halt(), released=True))
        if state == PolicyStatus.STOPPED:
            self.warn(f'Stopped: {reason}.')
        self._state, self._reason = state, reason
        self._publish_status()
        if self._run is not None and state not in _AT_WORK and not self._run.ended.done():
            self._run.ended.set_result((state, reason))

    def _tick(self) -> None:
        """Publishes what is due; the grid and not the timer sets the times of commands."""
        runner = self._runner
        if self._state != PolicyStatus.RUNNING or runner is None:
            return
        now_ns = self.now_ns()
        for command in runner.tick(now_ns, self._measured):
            self._deltas.publish(delta_message(command, runner.period_s))
        runner.poll(now_ns, self._task)
        if self._reason and not runner.approaching:
            self._reason = ''
            self._publish_status()
        if self._run is not None and (reason := self._run.end_reason()):
            self._set_state(PolicyStatus.STOPPED, reason)
        elif runner.end_reason is not None:
            self._set_state(PolicyStatus.DONE if runner.done else PolicyStatus.STOPPED, runner.end_reason)

    def _tick_shadow(self) -> None:
        if self.active and self._shadow is not None:
            self._shadow.tick(self.now_ns(), self._task)

    def _on_chunk(self, chunk: ChunkResult) -> None:
        if chunk.decoded is None or self._runner is None:
            self.warn(f'A chunk was not taken: {chunk.problem}.')
            return
        self.publish(
            self._chunks,
            chunk_message(chunk.result, chunk.decoded, self._runner.scheduler.settings.period_s, chunk.taken),
        )

    def _report(self, shadow: Shadow) -> None:
        if not shadow.evaluation.chunks:
            return
        for line in shadow.evaluation.lines():
            self.get_logger().info(line)
        if self.parameter('shadow_report'):
            from groot_ros.reports.plots import write_error_plot

            path = Path(self.parameter('shadow_report')).expanduser()
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(shadow.evaluation.as_dict(), indent=2) + '\n')
                write_error_plot([shadow.evaluation.as_dict()], path.with_suffix('.png'))
            except OSError as error:
                self.warn(f'{path} could not be written ({error.strerror}): its stats are above.')

    def _policy_name(self) -> str:
        return self._worker.policy.spec.name if self._worker is not None else self.parameter('backend')

    def _status(self) -> PolicyStatus:
        stats = self._runner.scheduler.stats if self._runner is not None else ScheduleStats()
        state, reason = self._state, self._reason
        if self._shadow is not None:
            state, reason = PolicyStatus.SHADOW, self._shadow.problem
            stats.chunks = self._shadow.evaluation.chunks
        elif state in (PolicyStatus.IDLE, PolicyStatus.READY):
            reason = self._blocking_reason()
            state = PolicyStatus.IDLE if reason else PolicyStatus.READY
        status = stats_message(stats)
        status.state, status.reason, status.policy, status.task, status.loading = (
            state,
            reason,
            self._policy_name(),
            self._task,
            self._loading,
        )
        status.header.stamp = to_time_msg(self.now_ns())
        return status

    def _publish_status(self) -> None:
        status = self._status()
        self.publish(self._statuses, status)
        if self._run is not None and self._state in _AT_WORK:
            self._run.handle.publish_feedback(RunPolicy.Feedback(status=status))


def _in_background(close: Callable[[], None]) -> None:
    """A model takes seconds to end, and the arm is stopped when commands fail to come for as long."""
    threading.Thread(target=close, name='closing', daemon=True).start()


def main() -> int:
    """Entry of `ros2 run groot_ros policy_server`."""
    return run_node(PolicyServer)


if __name__ == '__main__':
    raise SystemExit(main())

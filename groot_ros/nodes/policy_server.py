# SPDX-License-Identifier: Apache-2.0
"""policy_server: publishes the actions of a policy as policy/tcp_delta. It needs ~/enable or ~/run."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.timer import Timer
from std_srvs.srv import SetBool

from groot_ros.embodiment import load_embodiment
from groot_ros.geometry import Array
from groot_ros.msg import ActionChunk, PolicyStatus, TcpDelta
from groot_ros.nodes.policy_parameters import PARAMETERS
from groot_ros.policies.chunk_scheduler import ScheduleSettings, ScheduleStats
from groot_ros.policies.factory import PolicyChoice, PolicyLoader, make_policy
from groot_ros.policies.inference_worker import InferenceWorker
from groot_ros.policies.observation_builder import ObservationBuilder, ObservationUnavailable
from groot_ros.policies.pause import Pause
from groot_ros.policies.policy import Policy
from groot_ros.policies.policy_runner import ChunkResult, PolicyRunner
from groot_ros.policies.runner_settings import RunnerSettings
from groot_ros.policies.shadow import Shadow, report_shadow
from groot_ros.ros.arm_feedback import ArmFeedback
from groot_ros.ros.lifecycle_node import GrootNode
from groot_ros.ros.messages import chunk_message, delta_message, format_state, format_status, stats_message
from groot_ros.ros.policy_streams import PolicyStreams
from groot_ros.ros.qos import COMMAND_QOS, STATUS_QOS
from groot_ros.ros.run import run_node
from groot_ros.ros.run_policy_action import RunPolicyAction
from groot_ros.ros.time import to_time_msg
from groot_ros.ros.transforms import BASE_FRAME
from groot_ros.sampling.stream_monitor import Health
from groot_ros.srv import LoadPolicy, SetTask

_STATUS_S = 0.2
_POLL_LOADER_S = 0.05
# How long messages are kept to be compared with a chunk in shadow mode.
_MAX_CHUNK_S = 4.0
# How often replies are polled between two commands.
_POLL_REPLY_S = 0.007
_AT_WORK = (PolicyStatus.RUNNING, PolicyStatus.PAUSED)
_NOT_CONFIGURED = 'the policy server is not configured'
_APPROACH = 'moves to the start of the recording'


class PolicyServer(GrootNode):
    """Node that runs one policy: loads, swaps, starts and stops it, publishes its commands."""

    def __init__(self) -> None:
        super().__init__('policy_server', PARAMETERS)
        self._base = self.parameter('tf_prefix') + BASE_FRAME
        self._embodiment = load_embodiment(self.parameter('embodiment'))
        self._state = PolicyStatus.IDLE
        self._reason = ''
        self._task = self.parameter('task')
        self._loading = ''
        self._worker: InferenceWorker | None = None
        self._observation_builder: ObservationBuilder | None = None
        self._runner: PolicyRunner | None = None
        self._shadow: Shadow | None = None
        self._streams: PolicyStreams | None = None
        self._timer: Timer | None = None
        self._pause = Pause(self.parameter('resume_after_override'))
        self._loader = PolicyLoader()
        self._deltas = self.create_publisher(TcpDelta, 'policy/tcp_delta', COMMAND_QOS)
        self._chunks = self.create_publisher(ActionChunk, 'policy/action_chunk', COMMAND_QOS)
        self._statuses = self.create_publisher(PolicyStatus, 'policy_status', STATUS_QOS)
        self._arm = ArmFeedback(self, self.parameter('min_speed_scaling'), self._on_arm_status, self._on_echo)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_service(SetTask, '~/set_task', self._on_set_task)
        self.create_service(LoadPolicy, '~/load', self._on_load)
        self._run_action = RunPolicyAction(
            self, self._begin_task, lambda: self._state in _AT_WORK, self._on_success
        )
        self.create_timer(_POLL_LOADER_S, self._poll_loader)
        self.create_timer(_STATUS_S, self._publish_status)

    def configure(self) -> None:
        """Starts to load the policy; `policy_status` reports the progress."""
        self._state = PolicyStatus.IDLE
        self._reason = ''
        self._load(self._policy_choice())

    def deactivate(self) -> None:
        """Stops commanding; the arm holds."""
        self._stop('the policy server was stopped')

    def cleanup(self) -> None:
        """Closes the policy, and reports the errors measured in shadow mode."""
        self._loader.abandon()
        self._loading = ''
        worker = self._worker
        shadow = self._shadow
        if self._streams is not None:
            self._streams.close()
        if self._timer is not None:
            self.destroy_timer(self._timer)
        self._streams = self._timer = self._runner = None
        self._worker = self._shadow = self._observation_builder = None
        if worker is not None:
            worker.close()
        if shadow is not None:
            path = self.parameter('shadow_report')
            report_shadow(shadow.evaluation, path, self.get_logger().info, self.warn)

    def change_parameter(self, name: str, value: Any) -> None:
        """Takes over the task, and when the policy pauses."""
        if name == 'task':
            self._task = value.strip()
        elif name == 'min_speed_scaling':
            self._arm.min_speed_scaling = value
        elif name == 'resume_after_override':
            self._pause.resume_after_override = value

    def on_fault(self, reason: str) -> None:
        """Stops the policy; the arm holds."""
        self._stop(reason)

    def _stop(self, reason: str) -> None:
        """Ends a run, if there is one; the arm holds."""
        if self._state in _AT_WORK:
            self._set_state(PolicyStatus.STOPPED, reason)

    def diagnose(self) -> list[Health]:
        """The state, its reason and the statistics of the chunks."""
        status = self._status()
        values = format_status(status)
        if self._shadow is not None:
            values |= self._shadow.mean_errors()
        level = int(status.state in (PolicyStatus.STOPPED, PolicyStatus.PAUSED))
        return [Health('policy', level, format_state(status), values)]

    def _policy_choice(self, **other: object) -> PolicyChoice:
        """The policy that the parameters choose; the fields in `other` are chosen instead."""
        backend = other.get('backend', self.parameter('backend'))
        path = self.parameter('dataset' if backend == 'replay' else 'checkpoint')
        return self.settings(PolicyChoice, **{'path': path, **other})

    def _load(self, choice: PolicyChoice) -> None:
        self._loading = f'loading {choice.path or choice.backend}'
        observation = None
        if self._observation_builder is not None:
            observation = self._observation_builder.observe(self.now_ns(), self._task)
        if isinstance(observation, ObservationUnavailable):
            observation = None
        log = self.get_logger().info
        # ~/load may name any host: the token is only for the one that the parameters name.
        make = partial(make_policy, choice, self._embodiment, log, token_host=self.parameter('host'))
        self._loader.start(make, observation)

    def _poll_loader(self) -> None:
        made = self._loader.poll()
        if made is None:
            return
        self._loading = ''
        if isinstance(made, Policy):
            if self._worker is None:
                self._activate_policy(made)
            else:
                self._swap_policy(made)
        elif self._worker is None and self.parameter('autostart'):
            self.fail(str(made))
        else:
            self._reject_policy(str(made))

    def _activate_policy(self, policy: Policy) -> None:
        """Starts the first policy. The rate of its rows sets the time grid."""
        row_s = policy.period_s(self._embodiment)
        shadow = self.parameter('shadow')
        self._worker = InferenceWorker(policy, self.parameter('timeout_s'))
        self._observation_builder = ObservationBuilder(
            self._embodiment,
            self.parameter('max_observation_age_s'),
            policy.spec.observation_indices,
            row_s,
            _MAX_CHUNK_S if shadow else 1.0,
        )
        if policy.spec.observes or shadow:  # the shadow compares with what the streams show
            self._streams = PolicyStreams(self, self._observation_builder)
        if shadow:
            self._start_shadow(self._worker, self._observation_builder, row_s)
        else:
            self._start_runner(self._worker, self._observation_builder, row_s)

    def _start_shadow(self, worker: InferenceWorker, builder: ObservationBuilder, row_s: float) -> None:
        self._shadow = Shadow(worker, builder, row_s, self.parameter('inference_interval_s'))
        self._timer = self.create_timer(row_s / 5, self._tick_shadow)

    def _start_runner(self, worker: InferenceWorker, builder: ObservationBuilder, row_s: float) -> None:
        period_ns = round(1e9 / (self.parameter('command_hz') or 1.0 / row_s))
        schedule = self.settings(ScheduleSettings, period_s=row_s)
        settings = self.settings(RunnerSettings, period_ns=period_ns)
        self._runner = PolicyRunner(worker, builder, schedule, settings, self._on_chunk)
        polls = max(round(period_ns / 1e9 / _POLL_REPLY_S), 1)
        self._timer = self.create_timer(period_ns / polls / 1e9, self._tick)

    def _swap_policy(self, policy: Policy) -> None:
        """Replaces the policy between two chunks, in the middle of a run too, or rejects it with a reason."""
        runner = self._runner
        if runner is None:
            reason = 'shadow mode compares one policy: restart the node'
        else:
            reason = runner.swap_blocking_reason(policy, self._state in _AT_WORK)
        if reason or runner is None:
            _in_background(policy.close)
            self._reject_policy(reason)
            return
        self.get_logger().info(f'{policy.spec.name} replaces {runner.policy.spec.name}.')
        self._worker = InferenceWorker(policy, self.parameter('timeout_s'))
        _in_background(runner.swap_policy(self._worker).close)

    def _reject_policy(self, reason: str) -> None:
        self._loading = f'refused: {reason}'
        self.warn(f'The policy was not loaded: {reason}')

    def _on_echo(self, sequence: int, target: Array) -> None:
        if self._runner is not None:
            self._runner.apply_echo(sequence, target)

    def _on_arm_status(self) -> None:
        if self._state not in _AT_WORK:
            return
        if not self._arm.enabled:
            status = self._arm.status
            why = status.reason or status.safety_mode_text
            self._set_state(PolicyStatus.STOPPED, f'the arm is not enabled ({why})')
            return
        override = self._arm.override_reason()
        if override and self._runner is not None and self._runner.policy.spec.ends:
            self._set_state(PolicyStatus.STOPPED, f'{override}: start the replay again')
            return
        reason = self._pause_reason()
        if reason and reason != self._reason:
            self._set_state(PolicyStatus.PAUSED, reason)

    def _pause_reason(self) -> str:
        """Why the policy must pause, with how it continues; empty if it may run."""
        slider = self._arm.slider_reason()
        if slider and self._runner is not None and (note := self._runner.pause_note()):
            slider = f'{slider}; {note}'
        return self._pause.reason(self._arm.override_reason(), slider)

    def _resume(self) -> str:
        """Continues after a pause, once the arm is at rest. Returns why it cannot, empty if it runs."""
        now_ns = self.now_ns()
        if reason := self._pause_reason() or self._arm.blocking_reason(now_ns):
            return reason
        target = self._arm.target.pose
        assert self._runner is not None and self._timer is not None and target is not None
        self._timer.reset()
        self._runner.resume(target, now_ns)
        self._pause.confirm()
        self._set_state(PolicyStatus.RUNNING, _APPROACH if self._runner.approaching else '')
        return ''

    def _on_enable(self, request: SetBool.Request, _: SetBool.Response) -> SetBool.Response:
        if request.data:
            reason = self._confirm_resume() if self._state == PolicyStatus.PAUSED else self._begin()
            return SetBool.Response(success=not reason, message=reason or f'{self._policy_name()} runs')
        self._stop('disabled')
        return SetBool.Response(success=True, message='no more commands')

    def _confirm_resume(self) -> str:
        """Continues after an override. Returns why it cannot yet, empty if it runs."""
        if reason := self._arm.pause_reason():
            return reason
        self._pause.confirm()
        return self._resume()

    def _on_set_task(self, request: SetTask.Request, _: SetTask.Response) -> SetTask.Response:
        self._task = request.task.strip()
        return SetTask.Response(success=True, message=f'the task is: {self._task}')

    def _on_load(self, request: LoadPolicy.Request, _: LoadPolicy.Response) -> LoadPolicy.Response:
        if not self.configured:
            return LoadPolicy.Response(success=False, message=_NOT_CONFIGURED)
        if self._loader.busy:
            return LoadPolicy.Response(success=False, message=f'already {self._loading}')
        fields = {name: getattr(request, name) for name in ('backend', 'path', 'host', 'port')}
        given = {name: value for name, value in fields.items() if value}
        self._load(self._policy_choice(episode=request.episode, **given))
        message = f'{self._loading}; policy_status reports the progress'
        return LoadPolicy.Response(success=True, message=message)

    def _begin_task(self, task: str) -> str:
        """Starts a run for the action ~/run; an empty task keeps the present one."""
        self._task = task or self._task
        return self._begin()

    def _on_success(self) -> None:
        if self._state in _AT_WORK:
            self._set_state(PolicyStatus.READY, 'the task is done')

    def _blocking_reason(self) -> str:
        """Why the policy cannot run now; empty if it can."""
        if self._runner is None:
            return self._loading or _NOT_CONFIGURED
        if not self.active:
            return 'the policy server is not active'
        now_ns = self.now_ns()
        return self._arm.blocking_reason(now_ns) or self._runner.blocking_reason(now_ns)

    def _begin(self) -> str:
        """Starts the policy at the present target of the arm. Returns why it cannot, empty if it runs."""
        if self._state in _AT_WORK:
            return 'it runs already'
        if self._shadow is not None:
            return 'shadow mode commands nothing: start the node without the parameter shadow'
        if reason := self._blocking_reason():
            return reason
        target = self._arm.target.pose
        assert self._runner is not None and self._timer is not None and target is not None
        self._timer.reset()  # so that its ticks fall on those of the commands
        self._pause.confirm()
        self._runner.begin(target, self.now_ns())
        self._set_state(PolicyStatus.RUNNING, _APPROACH if self._runner.approaching else '')
        return ''

    def _set_state(self, state: int, reason: str) -> None:
        was_running = self._state == PolicyStatus.RUNNING
        self._state = state  # first: whatever fails below, no more commands follow
        self._reason = reason
        if was_running and self._runner is not None:
            self.publish(self._deltas, TcpDelta(source='policy', sequence=self._runner.halt(), released=True))
        if state == PolicyStatus.STOPPED:
            self.warn(f'Stopped: {reason}.')
        self._publish_status()
        if state not in _AT_WORK:
            self._run_action.finish(state, reason)

    def _tick(self) -> None:
        """Publishes the commands that are due. Their times come from the grid, not from the timer."""
        runner = self._runner
        if reason := self._run_action.end_reason():
            self._stop(reason)
        if self._state == PolicyStatus.PAUSED:
            self._resume()
        if self._state != PolicyStatus.RUNNING or runner is None:
            return
        now_ns = self.now_ns()
        for command in runner.tick(now_ns, self._arm.measured):
            self._deltas.publish(delta_message(command, runner.period_s, self._base))
        runner.poll(now_ns, self._task)
        if self._reason and not runner.approaching:
            self._reason = ''
            self._publish_status()
        if runner.end_reason is not None:
            self._set_state(PolicyStatus.DONE if runner.done else PolicyStatus.STOPPED, runner.end_reason)

    def _tick_shadow(self) -> None:
        if self.active and self._shadow is not None:
            self._shadow.tick(self.now_ns(), self._task)

    def _on_chunk(self, chunk: ChunkResult) -> None:
        if chunk.decoded is None or self._runner is None:
            self.warn(f'A chunk was refused: {chunk.problem}.')
            return
        period_s = self._runner.scheduler.settings.period_s
        message = chunk_message(chunk.result, chunk.decoded, period_s, chunk.taken, self._base)
        self.publish(self._chunks, message)

    def _policy_name(self) -> str:
        return self._worker.policy.spec.name if self._worker else self.parameter('backend')

    def _status(self) -> PolicyStatus:
        stats = self._runner.scheduler.stats if self._runner is not None else ScheduleStats()
        state = self._state
        reason = self._reason
        if self._shadow is not None:
            state = PolicyStatus.SHADOW
            reason = self._shadow.problem
            stats.chunks = self._shadow.evaluation.chunks
        elif state in (PolicyStatus.IDLE, PolicyStatus.READY):
            reason = self._blocking_reason()
            state = PolicyStatus.IDLE if reason else PolicyStatus.READY
        status = stats_message(stats)
        status.header.stamp = to_time_msg(self.now_ns())
        status.state = state
        status.reason = reason
        status.policy = self._policy_name()
        status.task = self._task
        status.loading = self._loading
        return status

    def _publish_status(self) -> None:
        status = self._status()
        self.publish(self._statuses, status)
        if self._state in _AT_WORK:
            self._run_action.publish_feedback(status)


def _in_background(close: Callable[[], None]) -> None:
    """Closes a policy in a thread: a model needs seconds to end, and the commands must not stop meanwhile."""
    threading.Thread(target=close, name='closing', daemon=True).start()


def main() -> int:
    """Entry of `ros2 run groot_ros policy_server`."""
    return run_node(PolicyServer)


if __name__ == '__main__':
    raise SystemExit(main())

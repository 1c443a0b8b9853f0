"""policy_server: asks a policy for chunks and plays them as policy/tcp_delta on an absolute time grid. Nothing moves before ~/enable."""

import os
import time
from pathlib import Path

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.task import Future
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from groot_ros.action import RunPolicy
from groot_ros.bags.images import stamp_in
from groot_ros.bags.types import typestore
from groot_ros.control.chunks import ChunkScheduler, GripperDecider, ScheduleSettings
from groot_ros.control.moves import Move, MoveFollower
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array, deltas_between
from groot_ros.health import Health
from groot_ros.msg import ActionChunk, PolicyStatus, RobotStatus, TcpDelta
from groot_ros.nodes.common import COMMAND_QOS, STATUS_QOS, STREAM_QOS, GrootNode, Parameter, ns_of, run_node, time_of
from groot_ros.nodes.stream_watch import StreamWatch
from groot_ros.policies.asking import Answer, Asker
from groot_ros.policies.base import Observation, Policy
from groot_ros.policies.client import Client
from groot_ros.policies.observing import Missing, Observer
from groot_ros.policies.remote import RemotePolicy
from groot_ros.policies.replay import ReplayPolicy
from groot_ros.policies.scripted import HoldPolicy, ScriptedPolicy
from groot_ros.policies.targets import AnswerError, Targets, gripper_key, targets_of
from groot_ros.srv import SetTask

PARAMETERS = {
    'embodiment': Parameter('ur5e_robotiq_zed', 'name of an embodiment, or path of its YAML file'),
    'backend': Parameter('replay', 'replay (an episode of a dataset), remote (a server of GR00T or of groot-ros serve), hold, or scripted (a fault)'),
    'dataset': Parameter('', 'folder of the dataset, for replay'),
    'episode': Parameter(0, 'episode of the dataset, counted from 0, for replay'),
    'settle_s': Parameter(1.5, 'pause at the start of the recording before it is replayed, s', 0.0, 10.0),
    'host': Parameter('127.0.0.1', 'address of the server, for remote'),
    'port': Parameter(5555, 'port of the server, for remote'),
    'flavour': Parameter('n1.7', 'release of GR00T whose wire the server speaks: n1.5, n1.6 or n1.7'),
    'timeout_s': Parameter(2.0, 'longest time for an answer, s', 0.05, 60.0),
    'fault': Parameter('', 'what goes wrong, for scripted: late, empty, not_a_number, jumping, shape, hanging or crashing'),
    'task': Parameter('', 'what the policy is told to do'),
    'command_hz': Parameter(0.0, 'commands a second; 0 for one each row', 0.0, 125.0),
    'execution_steps': Parameter(0, 'steps of a chunk that are used at most; 0 for all'),
    'replan_s': Parameter(0.4, 'time between two requests, s', 0.02, 10.0),
    'blend_s': Parameter(0.15, 'time over which a new chunk takes over, s', 0.0, 1.0),
    'ensemble': Parameter(0.0, 'above 0: all chunks that overlap are averaged, older ones with less weight', 0.0, 5.0),
    'stop_m': Parameter(0.02, 'distance within which the motion runs out when no chunk comes, m', 0.0, 0.1),
    'lead_s': Parameter(0.0, 'commands lie so far ahead, for the lag of the robot, s', 0.0, 0.5),
    'largest_lead_m': Parameter(0.08, 'largest distance of the target from the measured pose, m', 0.005, 0.3),
    'largest_speed_m_s': Parameter(1.0, 'a chunk with a faster step is refused, m/s', 0.01, 3.0),
    'stale_s': Parameter(0.3, 'a stream that is silent for longer stops the policy, s', 0.02, 5.0),
    'slow_scaling': Parameter(0.05, 'below this share of the speed slider the policy waits', 0.0, 1.0),
}
SCHEDULE = ('execution_steps', 'replan_s', 'blend_s', 'ensemble', 'stop_m', 'lead_s', 'largest_lead_m')
# Not a parameter, since everybody can read those.
TOKEN_VARIABLE = 'GROOT_ROS_API_TOKEN'
_FRESH_NS, _LOOK_S, _STATUS_S, _KEPT = 500_000_000, 0.5, 0.2, 100
_TEXT = {PolicyStatus.IDLE: 'idle', PolicyStatus.READY: 'ready', PolicyStatus.RUNNING: 'running', PolicyStatus.PAUSED: 'paused',
         PolicyStatus.STOPPED: 'stopped', PolicyStatus.DONE: 'done'}  # fmt: skip
_AT_WORK = (PolicyStatus.RUNNING, PolicyStatus.PAUSED)


class PolicyServer(GrootNode):
    """One policy, one schedule, one stream of commands."""

    def __init__(self) -> None:
        super().__init__('policy_server', PARAMETERS)
        self._embodiment = load_embodiment(self.parameter('embodiment'))
        self._pose_part = self._embodiment.pose_part
        self._policy = self._make_policy()
        self._row_s = 1.0 / getattr(self._policy, 'fps', self._embodiment.fps)
        self._period_ns = round(1e9 / (self.parameter('command_hz') or 1.0 / self._row_s))
        settings = {name: self.parameter(name) for name in SCHEDULE}
        self._scheduler = ChunkScheduler(ScheduleSettings(self._row_s, **settings))
        self._asker = Asker(self._policy, self.parameter('timeout_s'))
        self._observer = Observer(self._embodiment, self.parameter('stale_s'))
        self._gripper = GripperDecider()
        self._state, self._reason, self._problem = PolicyStatus.IDLE, '', ''
        self._task = self.parameter('task')
        self._sequence, self._next_ns, self._origin_ns = 0, 0, self.now_ns()
        self._commanded: Array | None = None
        self._sent: dict[int, Array] = {}
        self._target: Array | None = None
        self._target_ns = 0
        self._measured: Array | None = None
        self._arm = RobotStatus()
        self._ask_from_ns = 0
        self._fresh = self._ended = False
        self._ran: Future | None = None
        self._goal_handle: ServerGoalHandle | None = None
        self._deltas = self.create_publisher(TcpDelta, 'policy/tcp_delta', COMMAND_QOS)
        self._chunks = self.create_publisher(ActionChunk, 'policy/action_chunk', COMMAND_QOS)
        self._statuses = self.create_publisher(PolicyStatus, 'policy_status', STATUS_QOS)
        self.create_subscription(PoseStamped, 'tcp_target', self._on_target, STREAM_QOS)
        self.create_subscription(PoseStamped, 'tcp_pose', self._on_pose, STREAM_QOS)
        self.create_subscription(TcpDelta, 'command/tcp_delta', self._on_accepted, COMMAND_QOS)
        self.create_subscription(RobotStatus, 'robot_status', self._on_status, STATUS_QOS)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_service(SetTask, '~/set_task', self._on_set_task)
        self._run_action = ActionServer(
            self, RunPolicy, '~/run', self._on_run, goal_callback=self._on_goal, cancel_callback=lambda _: CancelResponse.ACCEPT
        )
        observed = self._embodiment.model_copy(update={'also_record': ()})
        self._watch = StreamWatch(self, observed, self._on_message, lambda topic, count: None)
        if self._policy.spec.observes:
            self.create_timer(_LOOK_S, self._watch.follow_publishers)
        self.create_timer(self._period_ns / 5e9, self._tick)
        self.create_timer(_STATUS_S, self._publish_status)

    def end(self) -> None:
        """Stops commanding; the arm holds."""
        if self._state in _AT_WORK:
            self._enter(PolicyStatus.STOPPED, 'the policy server was stopped')

    def close(self) -> None:
        """Lets the policy go."""
        self._asker.close()

    def diagnose(self) -> list[Health]:
        """The state, and how chunks come."""
        status = self._status()
        values = {
            'policy': status.policy,
            'chunks': str(status.chunks),
            'without a chunk in time': str(status.late),
            'latency p50 (ms)': f'{status.latency_p50 * 1e3:.1f}',
            'latency p95 (ms)': f'{status.latency_p95 * 1e3:.1f}',
            'steps dropped (share)': f'{status.dropped_share:.3f}',
            'jump at seams p95 (mm)': f'{status.seam_jump_p95 * 1e3:.2f}',
            'turn at seams p95 (rad)': f'{status.seam_turn_p95:.3f}',
        }
        level = int(status.state in (PolicyStatus.STOPPED, PolicyStatus.PAUSED))
        return [Health('policy', level, f'{_TEXT[status.state]}{": " if status.reason else ""}{status.reason}', values)]

    def _make_policy(self) -> Policy:
        backend, embodiment = self.parameter('backend'), self._embodiment
        if backend == 'replay':
            if not self.parameter('dataset'):
                raise GrootRosError('The backend replay needs the parameter dataset: give the folder of a converted dataset.')
            return ReplayPolicy(Path(self.parameter('dataset')).expanduser(), self.parameter('episode'), embodiment)
        if backend == 'remote':
            token = os.environ.get(TOKEN_VARIABLE, '')
            client = Client(self.parameter('host'), self.parameter('port'), self.parameter('flavour'), token, self.parameter('timeout_s'))
            return RemotePolicy(client, embodiment, self.parameter('flavour'))
        if backend == 'hold':
            return HoldPolicy(embodiment)
        if backend == 'scripted':
            return ScriptedPolicy(embodiment, self.parameter('fault'))
        raise GrootRosError(f'The policy backend {backend!r} is not known: use replay, remote, hold or scripted.')

    def _seconds(self, time_ns: int) -> float:
        return (time_ns - self._origin_ns) / 1e9

    def _on_message(self, topic: str, arrival_ns: int, cdr: bytes) -> None:
        self._observer.add(topic, stamp_in(cdr), typestore().deserialize_cdr(cdr, self._watch.types[topic]))

    def _on_target(self, message: PoseStamped) -> None:
        self._target, self._target_ns = _pose(message), ns_of(message.header.stamp)

    def _on_pose(self, message: PoseStamped) -> None:
        self._measured = _pose(message)

    def _on_accepted(self, message: TcpDelta) -> None:
        """What a limit took away is taken from our own idea of the target, so that it does not grow away from the arm's."""
        sent = self._sent.pop(message.sequence, None) if message.source == 'policy' else None
        if sent is not None and self._commanded is not None:
            lost = np.array([*message.translation]) - sent[:3]
            self._commanded = np.concatenate([self._commanded[:3] + lost, self._commanded[3:]])

    def _on_status(self, message: RobotStatus) -> None:
        self._arm = message
        if self._state not in _AT_WORK:
            return
        if message.state != RobotStatus.ENABLED:
            self._enter(PolicyStatus.STOPPED, f'the arm is not enabled ({message.reason or message.safety_mode_text})')
        elif reason := self._reason_to_wait():
            if self._state == PolicyStatus.RUNNING:
                self._enter(PolicyStatus.PAUSED, reason)
        elif self._state == PolicyStatus.PAUSED:
            self._resume()

    def _reason_to_wait(self) -> str:
        """Somebody else has the arm, or has stopped it with the speed slider: the policy goes on, with a fresh observation, when they let it."""
        if self._arm.source not in ('', 'policy'):
            return f'{self._arm.source} commands the arm'
        if self._arm.connected and self._arm.speed_scaling < self.parameter('slow_scaling'):
            return f'the speed slider stands at {self._arm.speed_scaling * 100:.0f} %'
        return ''

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not request.data:
            if self._state in _AT_WORK:
                self._enter(PolicyStatus.STOPPED, 'disabled')
            response.success, response.message = True, 'no more commands'
            return response
        reason = self._begin()
        response.success, response.message = not reason, reason or f'{self._policy.spec.name} runs'
        return response

    def _on_set_task(self, request: SetTask.Request, response: SetTask.Response) -> SetTask.Response:
        self._task = request.task.strip()
        response.success, response.message = True, f'the task is: {self._task}'
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
        self._ran, self._goal_handle, until_s = Future(), handle, time.monotonic() + (goal.time_limit or float('inf'))
        succeeded = self.create_subscription(Bool, goal.success_topic, self._on_success, COMMAND_QOS) if goal.success_topic else None
        self._time_is_over = lambda: time.monotonic() > until_s
        outcome, result.message = await self._ran
        result.success = outcome in (PolicyStatus.DONE, PolicyStatus.READY)
        if succeeded is not None:
            self.destroy_subscription(succeeded)
        self._ran = self._goal_handle = None
        (handle.canceled if handle.is_cancel_requested else handle.succeed if result.success else handle.abort)()
        return result

    def _on_success(self, message: Bool) -> None:
        if message.data and self._state in _AT_WORK:
            self._enter(PolicyStatus.READY, 'the task is done')

    def _why_not(self) -> str:
        """Why it cannot run now; empty where it can."""
        if not self.active:
            return 'the policy server is not active'
        if self._arm.state != RobotStatus.ENABLED:
            return 'the arm is not enabled: call ur5e_driver/enable first'
        if self._target is None or self.now_ns() - self._target_ns > _FRESH_NS:
            return 'tcp_target is silent: look at ur5e_driver'
        if waits := self._reason_to_wait():
            return waits
        if self._asker.busy:
            return f'{self._policy.spec.name} still works on an earlier request'
        seen = self._observe(self.now_ns())
        return seen.reason if isinstance(seen, Missing) else ''

    def _begin(self) -> str:
        """Starts from where the arm stands, and returns an empty text, or why not."""
        if self._state in _AT_WORK:
            return 'it runs already'
        if reason := self._why_not():
            return reason
        assert self._target is not None
        self._commanded, self._problem = self._target, ''
        self._sent.clear()
        self._scheduler.start(self._target)
        now_ns = self.now_ns()
        self._next_ns, self._ask_from_ns = now_ns, now_ns
        self._fresh, self._ended = True, False
        reason = self._approach(self._policy, now_ns) if isinstance(self._policy, ReplayPolicy) else ''
        self._enter(PolicyStatus.RUNNING, reason)
        return ''

    def _approach(self, policy: ReplayPolicy, now_ns: int) -> str:
        """Goes to where the recording began, as one long chunk; returns what it does."""
        follower, poses = MoveFollower(self._target, self._row_s), []
        opening = float(policy.infer(Observation(0, policy.start_state))[gripper_key(self._embodiment)][0, 0])
        follower.follow([Move(policy.start_state[self._pose_part], opening, self.parameter('settle_s'))])
        while not follower.done:
            follower.step()
            poses.append(follower.pose)
        now_s = self._seconds(now_ns)
        self._scheduler.add(np.array(poses), np.full(len(poses), opening), now_s, now_s)
        self._ask_from_ns = now_ns + round(len(poses) * self._row_s * 1e9)
        return 'moves to where the recording began'

    def _resume(self) -> None:
        assert self._target is not None
        self._commanded = self._target
        self._scheduler.flush(self._target)
        self._next_ns = self.now_ns()
        self._enter(PolicyStatus.RUNNING, '')

    def _enter(self, state: int, reason: str) -> None:
        if self._state == PolicyStatus.RUNNING:
            self._sequence += 1
            self.publish(self._deltas, TcpDelta(source='policy', sequence=self._sequence, release=True))
            self._asker.forget()
        if state == PolicyStatus.STOPPED:
            self.warn(f'Stopped: {reason}.')
        self._state, self._reason = state, reason
        self._publish_status()
        if self._ran is not None and state not in _AT_WORK and not self._ran.done():
            self._ran.set_result((state, reason))

    def _observe(self, now_ns: int) -> Observation | Missing:
        if not self._policy.spec.observes:
            # A row's own time, so that a replay's rows follow each other without a part of one lost or doubled.
            row_ns = self._row_s * 1e9
            tick_ns = self._ask_from_ns + round((now_ns - self._ask_from_ns) // row_ns * row_ns)
            return Observation(tick_ns, np.zeros(0), {}, self._task)
        return self._observer.observe(now_ns, self._task)

    def _tick(self) -> None:
        """Takes what has come, asks when it is time, and publishes what is due; the grid and not the timer sets the times of commands."""
        if self._state != PolicyStatus.RUNNING:
            return
        now_ns = self.now_ns()
        if (answer := self._asker.poll()) is not None:
            self._take(answer, self._seconds(now_ns))
        self._ask(now_ns)
        if self._goal_handle is not None and (self._goal_handle.is_cancel_requested or self._time_is_over()):
            self._enter(PolicyStatus.STOPPED, 'cancelled' if self._goal_handle.is_cancel_requested else 'the time is over')
        while self._state == PolicyStatus.RUNNING and now_ns >= self._next_ns:
            self._step(self._next_ns)
            self._next_ns += self._period_ns

    def _ask(self, now_ns: int) -> None:
        now_s = self._seconds(now_ns)
        if now_ns < self._ask_from_ns or self._ended or self._asker.busy or not self._scheduler.wants_request(now_s):
            return
        if self._reason:  # the approach is over
            self._scheduler.flush(self._scheduler.target(now_s))
            self._reason = ''
            self._publish_status()
        seen = self._observe(now_ns)
        if isinstance(seen, Missing):
            self._enter(PolicyStatus.STOPPED, seen.reason)
            return
        self._asker.ask(seen, reset=self._fresh)
        self._fresh = False
        self._scheduler.requested(now_s)

    def _take(self, answer: Answer, now_s: float) -> None:
        observed_s = self._seconds(answer.observation.tick_ns)
        try:
            if answer.problem:
                raise AnswerError(answer.problem)
            targets = targets_of(answer.action, self._embodiment, self._scheduler.target(observed_s))
            if not len(targets.poses):
                self._ended = self._policy.spec.ends
                raise AnswerError('it gave no step' if not self._ended else '')
            self._check_speed(targets)
        except AnswerError as error:
            self._scheduler.lost()
            if str(error):
                self._problem = str(error)
                self.warn(f'A chunk was not taken: {self._problem}.')
            return
        taken = self._scheduler.add(targets.poses, targets.openings, observed_s, now_s)
        message = ActionChunk(period=self._row_s, latency=answer.answered_s - answer.asked_s, taken=taken)
        message.header.stamp, message.header.frame_id = time_of(answer.observation.tick_ns), 'base'
        message.poses, message.openings = targets.poses.ravel().tolist(), targets.openings.tolist()
        self.publish(self._chunks, message)

    def _check_speed(self, targets: Targets) -> None:
        steps = np.linalg.norm(np.diff(targets.poses[:, :3], axis=0), axis=1) if len(targets.poses) > 1 else np.zeros(1)
        if steps.max() > self.parameter('largest_speed_m_s') * self._row_s:
            raise AnswerError(f'step {int(steps.argmax()) + 1} moves at {steps.max() / self._row_s:.2f} m/s')

    def _step(self, tick_ns: int) -> None:
        now_s, period_s = self._seconds(tick_ns), self._period_ns / 1e9
        assert self._commanded is not None
        if self._scheduler.starved(now_s) and not self._reason:
            self._enter(PolicyStatus.DONE if self._ended else PolicyStatus.STOPPED, '' if self._ended else self._why_starved())
            return
        pose, value = self._scheduler.sample(now_s + period_s, self._measured)
        delta = deltas_between(np.array([self._commanded, pose]))[0]
        self._commanded = pose
        self._publish(tick_ns, delta, self._gripper.decide(value) if self._policy.spec.observes and np.isfinite(value) else value)

    def _why_starved(self) -> str:
        return f'no chunk came in time{": " if self._problem else ""}{self._problem}'

    def _publish(self, tick_ns: int, delta: Array, opening: float) -> None:
        self._sequence += 1
        message = TcpDelta(source='policy', sequence=self._sequence, duration=self._period_ns / 1e9, opening=float(opening))
        message.translation, message.rotation = delta[:3], delta[3:]
        message.header.stamp, message.header.frame_id = time_of(tick_ns), 'base'
        self._sent[self._sequence] = delta
        while len(self._sent) > _KEPT:
            self._sent.pop(next(iter(self._sent)))
        self._deltas.publish(message)

    def _status(self) -> PolicyStatus:
        figures = self._scheduler.figures
        state, reason = self._state, self._reason
        if state in (PolicyStatus.IDLE, PolicyStatus.READY):
            reason = self._why_not()
            state = PolicyStatus.IDLE if reason else PolicyStatus.READY
        status = PolicyStatus(state=state, reason=reason, policy=self._policy.spec.name, task=self._task, chunks=figures.chunks, late=figures.late)
        status.header.stamp = time_of(self.now_ns())
        status.latency_p50, status.latency_p95 = figures.latency_s(0.5), figures.latency_s(0.95)
        status.dropped_share = figures.dropped_share
        status.seam_jump_p95 = _p95([seam.jump_m for seam in figures.seams])
        status.seam_turn_p95 = _p95([seam.turn_rad for seam in figures.seams])
        status.second_difference_p95 = _p95(figures.second_differences_m)
        return status

    def _publish_status(self) -> None:
        status = self._status()
        self.publish(self._statuses, status)
        if self._goal_handle is not None and self._state in _AT_WORK:
            self._goal_handle.publish_feedback(RunPolicy.Feedback(status=status))


def _pose(message: PoseStamped) -> Array:
    p, q = message.pose.position, message.pose.orientation
    return np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])


def _p95(values) -> float:
    return float(np.quantile(list(values), 0.95)) if values else 0.0


def main() -> int:
    """Entry of `ros2 run groot_ros policy_server`."""
    return run_node(PolicyServer)


if __name__ == '__main__':
    raise SystemExit(main())

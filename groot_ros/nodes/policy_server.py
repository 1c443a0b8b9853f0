"""policy_server: plays a policy's chunks as policy/tcp_delta at the dataset's rate. Nothing moves before ~/enable."""

from enum import Enum
from pathlib import Path

import numpy as np
from geometry_msgs.msg import PoseStamped
from std_msgs.msg import String
from std_srvs.srv import SetBool

from groot_ros.control.moves import Move, MoveFollower
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.geometry import Array
from groot_ros.msg import RobotStatus, TcpDelta
from groot_ros.nodes.common import COMMAND_QOS, STATUS_QOS, STREAM_QOS, GrootNode, Parameter, ns_of, run_node, time_of
from groot_ros.policies.base import Observation
from groot_ros.policies.replay import ReplayPolicy

PARAMETERS = {
    'embodiment': Parameter('ur5e_robotiq_zed', 'name of an embodiment, or path of its YAML file'),
    'backend': Parameter('replay', "'replay': the recorded actions of one episode of a dataset"),
    'dataset': Parameter('', 'folder of the dataset, for backend replay'),
    'episode': Parameter(0, 'episode of the dataset, counted from 0, for backend replay'),
    'settle_s': Parameter(1.5, 'pause at the start of the recording before it is replayed, s', 0.0, 10.0),
}
_TARGET_FRESH_NS = 500_000_000


class RunState(Enum):
    """Published on ~/state."""

    IDLE = 'idle'
    APPROACHING = 'approaching'
    RUNNING = 'running'
    DONE = 'done'
    STOPPED = 'stopped'


class PolicyServer(GrootNode):
    """Goes to where the recording began, waits, and then publishes one action a tick on an absolute time grid."""

    def __init__(self) -> None:
        super().__init__('policy_server', PARAMETERS)
        if self.parameter('backend') != 'replay':
            raise GrootRosError(f"The policy backend {self.parameter('backend')!r} is not known: use 'replay'.")
        if not self.parameter('dataset'):
            raise GrootRosError('The backend replay needs the parameter dataset: give the folder of a converted dataset.')
        self._embodiment = load_embodiment(self.parameter('embodiment'))
        kinds = ('delta_position', 'delta_rotation', 'command')
        self._translation, self._rotation, self._opening = (self._embodiment.action_part(kind) for kind in kinds)
        self._policy = ReplayPolicy(Path(self.parameter('dataset')).expanduser(), self.parameter('episode'), self._embodiment)
        self._period_ns = round(1e9 / self._policy.spec.fps)
        self._period_s = 1.0 / self._policy.spec.fps
        self._state, self._sequence = RunState.IDLE, 0
        self._target: Array | None = None
        self._target_ns = 0
        self._arm_enabled = False
        self._approach: MoveFollower | None = None
        self._chunk: list[Array] = []
        self._next_ns = 0
        self._deltas = self.create_publisher(TcpDelta, 'policy/tcp_delta', COMMAND_QOS)
        self._states = self.create_publisher(String, '~/state', STATUS_QOS)
        self.create_subscription(PoseStamped, 'tcp_target', self._on_target, STREAM_QOS)
        self.create_subscription(RobotStatus, 'robot_status', self._on_status, STATUS_QOS)
        self.create_service(SetBool, '~/enable', self._on_enable)
        self.create_timer(self._period_s / 10, self._tick)
        self._enter(RunState.IDLE)

    def end(self) -> None:
        """Stops commanding; the arm holds."""
        if self._state in (RunState.APPROACHING, RunState.RUNNING):
            self._enter(RunState.STOPPED)

    def _enter(self, state: RunState) -> None:
        if self._state in (RunState.APPROACHING, RunState.RUNNING) and state not in (RunState.APPROACHING, RunState.RUNNING):
            self._sequence += 1
            self.publish(self._deltas, TcpDelta(source='policy', sequence=self._sequence, release=True))
        self._state = state
        self._states.publish(String(data=state.value))

    def _on_target(self, message: PoseStamped) -> None:
        p, q = message.pose.position, message.pose.orientation
        self._target = np.array([p.x, p.y, p.z, q.x, q.y, q.z, q.w])
        self._target_ns = ns_of(message.header.stamp)

    def _on_status(self, message: RobotStatus) -> None:
        self._arm_enabled = message.state == RobotStatus.ENABLED
        if not self._arm_enabled and self._state in (RunState.APPROACHING, RunState.RUNNING):
            self.warn(f'Stopped: the arm is not enabled ({message.reason}).')
            self._enter(RunState.STOPPED)

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        if not request.data:
            self._enter(RunState.IDLE)
            response.success, response.message = True, 'idle: no more commands'
        elif not self.active:
            response.success, response.message = False, 'the policy server is not active'
        elif not self._arm_enabled:
            response.success, response.message = False, 'the arm is not enabled: call ur5e_driver/enable first'
        elif self._target is None or self.now_ns() - self._target_ns > _TARGET_FRESH_NS:
            response.success, response.message = False, 'tcp_target is silent: look at ur5e_driver'
        else:
            self._begin(self._target)
            response.success, response.message = True, f'moving to the start of episode {self.parameter("episode")}'
        return response

    def _begin(self, target: Array) -> None:
        pose = self._policy.start_state[self._embodiment.pose_part]
        opening = float(self._policy.actions[0][self._opening][0])
        self._policy.reset()
        self._chunk = []
        self._approach = MoveFollower(target, self._period_s)
        self._approach.follow([Move(pose, opening, self.parameter('settle_s'))])
        self._next_ns = self.now_ns()
        self._enter(RunState.APPROACHING)

    def _tick(self) -> None:
        """Publishes what is due; the timer runs faster than the grid, so that the grid and not the timer sets the times."""
        while self._state in (RunState.APPROACHING, RunState.RUNNING) and self.now_ns() >= self._next_ns:
            if self._state is RunState.APPROACHING:
                self._step_approach()
            else:
                self._step_policy()
            self._next_ns += self._period_ns

    def _step_approach(self) -> None:
        assert self._approach is not None
        delta = self._approach.step()
        self._publish(delta[:3], delta[3:], self._approach.opening)
        if self._approach.done:
            self._enter(RunState.RUNNING)

    def _step_policy(self) -> None:
        if not self._chunk:
            self._chunk = list(self._policy.infer(Observation(self._next_ns, self._policy.start_state, {}, '')))
        if not self._chunk:
            self._enter(RunState.DONE)
            return
        action = self._chunk.pop(0)
        self._publish(action[self._translation], action[self._rotation], float(action[self._opening][0]))

    def _publish(self, translation: Array, rotation: Array, opening: float) -> None:
        self._sequence += 1
        message = TcpDelta(source='policy', sequence=self._sequence, duration=self._period_s, opening=opening)
        message.translation, message.rotation = translation, rotation
        message.header.stamp, message.header.frame_id = time_of(self._next_ns), 'base'
        self._deltas.publish(message)


def main() -> int:
    """Entry of `ros2 run groot_ros policy_server`."""
    return run_node(PolicyServer)


if __name__ == '__main__':
    raise SystemExit(main())

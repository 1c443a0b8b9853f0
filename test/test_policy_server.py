# SPDX-License-Identifier: Apache-2.0
"""The policy server on real rclpy with the driver of the arm and a simulated cell."""

import threading
import time

import numpy as np
import pytest
from groot_ros.action import RunPolicy
from groot_ros.msg import ActionChunk, PolicyStatus, RobotStatus
from groot_ros.srv import LoadPolicy, SetTask
from rclpy.action import ActionClient
from sensor_msgs.msg import Image
from std_msgs.msg import Bool
from std_srvs.srv import SetBool

from groot_ros.inference.protocol import Modality
from groot_ros.inference.server import Server
from groot_ros.ros.qos import COMMAND_QOS, IMAGE_QOS, STATUS_QOS
from groot_ros.ros.time import to_time_msg


class Watched:
    """The status and chunks that the policy server publishes."""

    def __init__(self, operator) -> None:
        self.operator = operator
        self.status = PolicyStatus()
        self.chunks = []
        operator.node.create_subscription(PolicyStatus, 'policy_status', self._note, STATUS_QOS)
        operator.node.create_subscription(ActionChunk, 'policy/action_chunk', self.chunks.append, COMMAND_QOS)

    def _note(self, status):
        self.status = status

    def state(self, state, timeout_s=60.0):
        return self.operator.until(lambda: self.status.state == state, timeout_s)

    def enable(self, on=True):
        return self.operator.call(SetBool, 'policy_server/enable', SetBool.Request(data=on))

    def ready(self):
        assert self.operator.enable().success
        assert self.state(PolicyStatus.READY), self.status.reason
        return self


@pytest.fixture
def watched(driver, operator):
    return Watched(operator)


def test_nothing_runs_before_the_arm_is_enabled(watched, operator, start_node):
    start_node('policy_server', backend='scripted')
    assert operator.until(lambda: 'the arm is not enabled' in watched.status.reason)
    assert watched.status.state == PolicyStatus.IDLE
    answer = watched.enable()
    assert not answer.success
    assert 'call ur5e_driver/enable first' in answer.message


def test_it_moves_when_enabled_and_holds_when_disabled(watched, operator, start_node):
    start_node('policy_server', backend='scripted', task='first')
    watched.ready()
    assert watched.status.task == 'first'
    before = operator.position
    operator.spin(0.5)
    np.testing.assert_allclose(operator.position, before, atol=1e-5)
    assert operator.call(SetTask, 'policy_server/set_task', SetTask.Request(task='second')).success
    assert watched.enable().success
    assert not watched.enable().success
    assert operator.until(lambda: operator.position[0] - before[0] > 0.02)
    assert watched.status.task == 'second'
    assert operator.until(lambda: len(watched.chunks) > 2)
    assert all(chunk.taken and len(chunk.poses) == 7 * 16 for chunk in watched.chunks)
    assert watched.enable(False).success
    assert watched.state(PolicyStatus.STOPPED)
    assert watched.status.reason == 'disabled'
    assert operator.until(lambda: operator.status.source == '')
    assert operator.status.state == RobotStatus.ENABLED


def test_a_policy_that_hangs_ends_at_rest_with_its_reason(watched, operator, start_node):
    """One fault with real threads, clock and arm; test_policy_runner has all of them in made-up time."""
    start_node('policy_server', backend='scripted', fault='hanging', timeout_s=0.3, stop_distance_m=0.01)
    watched.ready()
    assert watched.enable().success
    assert watched.state(PolicyStatus.STOPPED)
    assert watched.status.reason == 'no chunk came in time: scripted hanging gave no answer for 0.3 s'
    operator.spin(0.2)
    still = operator.newest['tcp_target'].pose.position.x
    operator.spin(0.2)
    assert operator.newest['tcp_target'].pose.position.x == pytest.approx(still, abs=1e-4)
    assert operator.until(lambda: 'still works on an earlier request' in watched.enable().message)
    assert watched.status.state == PolicyStatus.STOPPED


@pytest.mark.long
def test_another_policy_is_loaded_during_a_run_or_refused(watched, operator, converted, start_node):
    start_node('policy_server', backend='scripted')
    watched.ready()
    assert watched.enable().success

    def load(**what):
        answer = operator.call(LoadPolicy, 'policy_server/load', LoadPolicy.Request(**what))
        assert answer.success, answer.message

    load(backend='lerobot', path='/nowhere')
    assert operator.until(lambda: watched.status.loading.startswith('refused: '))
    load(backend='replay', path=str(converted))
    assert operator.until(lambda: 'end the run first' in watched.status.loading)
    assert (watched.status.state, watched.status.policy) == (PolicyStatus.RUNNING, 'scripted')
    load(backend='hold')
    assert operator.until(lambda: watched.status.policy == 'hold')
    assert (watched.status.state, watched.status.loading) == (PolicyStatus.RUNNING, '')
    still = watched.status.chunks
    assert operator.until(lambda: watched.status.chunks > still + 2)
    assert watched.status.state == PolicyStatus.RUNNING


def test_a_stop_of_the_arm_stops_the_policy(watched, operator, driver, start_node):
    start_node('policy_server', backend='scripted')
    watched.ready()
    assert watched.enable().success
    driver.hooks.call('protective_stop')
    assert watched.state(PolicyStatus.STOPPED)
    assert 'the arm is not enabled' in watched.status.reason


def override(watched, operator):
    """The operator takes over until the policy has noticed, and releases."""
    assert operator.until(lambda: operator.status.source == 'policy')

    def taken():
        """Commands at 20 Hz: a spin takes one message, and many come."""
        operator.send(translation=(0.0, 0.001, 0.0))
        operator.until(lambda: False, 0.05)
        return watched.status.reason.startswith('teleop commands the arm')

    assert operator.until(taken)
    operator.release()


def test_after_an_override_the_policy_waits_until_it_is_enabled_again(watched, operator, start_node):
    start_node('policy_server', backend='scripted')
    watched.ready()
    assert watched.enable().success
    override(watched, operator)
    assert operator.until(lambda: watched.status.reason.startswith('the override has ended'))
    operator.until(lambda: False, 1.0)
    assert watched.status.state == PolicyStatus.PAUSED
    assert operator.status.source == ''
    assert operator.until(lambda: watched.enable().success)
    assert watched.state(PolicyStatus.RUNNING)
    assert operator.until(lambda: operator.status.source == 'policy')


@pytest.mark.long
def test_a_policy_may_continue_by_itself_after_an_override(watched, operator, start_node):
    start_node('policy_server', backend='scripted', resume_after_override=True)
    watched.ready()
    assert watched.enable().success
    override(watched, operator)
    assert watched.state(PolicyStatus.RUNNING)
    assert operator.until(lambda: operator.status.source == 'policy')


@pytest.mark.long
def test_an_override_ends_a_replay(watched, operator, converted, start_node):
    start_node('policy_server', backend='replay', dataset=str(converted))
    watched.ready()
    assert watched.enable().success
    override(watched, operator)
    assert watched.status.state == PolicyStatus.STOPPED
    assert watched.status.reason == 'teleop commands the arm: start the replay again'


@pytest.mark.long
def test_a_run_by_action_ends_by_its_topic_by_its_time_and_by_cancelling(watched, operator, start_node):
    start_node('policy_server', backend='hold')
    watched.ready()
    client = ActionClient(operator.node, RunPolicy, 'policy_server/run')
    assert operator.until(client.server_is_ready)
    done = operator.node.create_publisher(Bool, 'done', COMMAND_QOS)

    def run(act, **goal):
        feedback = []
        sent = client.send_goal_async(RunPolicy.Goal(**goal), feedback_callback=feedback.append)
        assert operator.until(sent.done)
        assert operator.until(lambda: feedback)
        result = sent.result().get_result_async()

        def ended():
            act(sent.result())
            operator.spin(0.05)
            return result.done()

        assert operator.until(ended)
        return result.result().result

    by_topic = run(lambda handle: done.publish(Bool(data=True)), task='wave', success_topic='done')
    assert (by_topic.success, by_topic.message) == (True, 'the task is done')
    assert watched.status.task == 'wave'
    by_time = run(lambda handle: None, time_limit=0.5)
    assert (by_time.success, by_time.message) == (False, 'the time is over')
    cancelled = run(lambda handle: handle.cancel_goal_async())
    assert not cancelled.success


class Circle:
    """A model that answers deltas and keeps the observations."""

    def __init__(self) -> None:
        self.asked = []
        self.name = 'circle'

    def extra_info(self):
        return {}

    def modalities(self):
        names = ['delta_tcp_position', 'delta_tcp_orientation', 'gripper_command']
        return {
            'video': Modality([0], []),
            'state': Modality([0], ['tcp_pose']),
            'action': Modality(list(range(16)), names),
            'language': Modality([0], ['annotation.human.action.task_description']),
        }

    def get_action(self, observation, options):
        self.asked.append(observation)
        deltas = np.zeros((1, 16, 3), np.float32)
        deltas[..., 1] = 0.001
        return {
            'delta_tcp_position': deltas,
            'delta_tcp_orientation': np.zeros((1, 16, 3)),
            'gripper_command': np.full((1, 16, 1), 0.1),
        }, {}

    def reset(self):
        pass


def publish_images(operator):
    images = operator.node.create_publisher(Image, 'zed/image', IMAGE_QOS)

    def publish():
        image = Image(width=64, height=48, step=192, encoding='rgb8', data=bytes(48 * 192))
        image.header.stamp = to_time_msg(time.time_ns())
        images.publish(image)

    operator.node.create_timer(0.05, publish)


def test_a_model_on_a_server_sees_the_robot_and_moves_it(watched, operator, driver, start_node, loopback):
    model = Circle()
    stop = threading.Event()
    server = Server(model, loopback, 5611)
    thread = threading.Thread(target=server.run, args=(lambda: not stop.is_set(),))
    thread.start()
    try:
        start_node('robotiq_driver', robot_ip=driver.host)
        publish_images(operator)
        start_node(
            'policy_server',
            backend='remote',
            host=loopback,
            port=5611,
            task='go on',
            max_observation_age_s=2.0,
            timeout_s=5.0,
        )
        watched.ready()
        before = operator.position
        assert watched.enable().success
        assert operator.until(lambda: operator.position[1] - before[1] > 0.02), watched.status.reason
    finally:
        stop.set()
        thread.join()
    seen = model.asked[0]['state']['tcp_pose'][0, 0]
    np.testing.assert_allclose(seen[:3], before, atol=1e-3)
    assert model.asked[-1]['language']['annotation.human.action.task_description'] == [['go on']]
    assert operator.until(lambda: operator.newest['gripper/state'].target == 0.0)


def test_a_server_that_does_not_answer_is_reported(start_node, loopback):
    process = start_node('policy_server', backend='remote', host=loopback, timeout_s=0.3)
    _, text = process.communicate(timeout=60)
    assert process.returncode == 1
    assert 'gave no answer for 0.3 s: check that it runs' in text

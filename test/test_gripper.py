# SPDX-License-Identifier: Apache-2.0
"""The gripper through both connections: the simulated URCap, and a Modbus slave on a pseudo-terminal."""

import contextlib
import math
import os
import pty
import select
import socket
import struct
import threading
import tty

import pytest

from groot_ros.hardware.loss_notice import LossNotice
from groot_ros.hardware.robotiq.gripper import GripperSettings, Robotiq
from groot_ros.hardware.robotiq.registers import GripperRegisters
from groot_ros.hardware.robotiq.urcap import UrcapSocket


class ModbusSlave:
    """A 2F gripper on an RS-485 line: function codes 4, 16 and 23, registers 1000 and 2000."""

    def __init__(self) -> None:
        self.line, far = pty.openpty()
        tty.setraw(self.line)
        tty.setraw(far)
        self.device, self._far = os.ttyname(far), far
        self.outputs = [0, 0, 0]  # action, position, speed and force
        self.position, self.current = 3, 12
        self._running = True
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._running = False
        self._thread.join()
        os.close(self.line)
        os.close(self._far)

    def _serve(self) -> None:
        data = b''
        while self._running:
            if not select.select([self.line], [], [], 0.02)[0]:
                continue
            data += os.read(self.line, 256)
            while (length := self._length(data)) and len(data) >= length:
                frame, data = data[:length], data[length:]
                assert _crc(frame) == 0
                reply = self._answer(frame)
                os.write(self.line, reply + struct.pack('<H', _crc(reply)))

    def _length(self, data: bytes) -> int:
        if len(data) < 2:
            return 0
        if data[1] == 4:
            return 8
        at = 6 if data[1] == 16 else 10
        return at + 1 + data[at] + 2 if len(data) > at else 0

    def _answer(self, frame: bytes) -> bytes:
        function = frame[1]
        if function != 4:
            at = 2 if function == 16 else 6
            address, count = struct.unpack_from('>HH', frame, at)
            self.outputs[address - 1000 : address - 1000 + count] = struct.unpack_from(
                f'>{count}H', frame, at + 5
            )
            self._act()
        if function == 16:
            return frame[:6]
        return frame[:2] + bytes([6]) + struct.pack('>3H', *self._inputs())

    def _act(self) -> None:
        if self.outputs[0] & 0x0900 == 0x0900:
            self.position = min(max(self.outputs[1] & 0xFF, 3), 228)

    def _inputs(self) -> list[int]:
        active = bool(self.outputs[0] & 0x0100)
        status = (0xC0 | 0x30 | (self.outputs[0] >> 8 & 0x09)) if active else 0
        return [status << 8, self.outputs[1] & 0xFF, self.position << 8 | self.current]


def _crc(data: bytes) -> int:
    """CRC-16/MODBUS; 0 over a frame with its own CRC."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc


@pytest.fixture
def slave():
    made = ModbusSlave()
    yield made
    made.close()


@pytest.fixture
def running():
    """Starts grippers and collects what they report."""
    made = []

    def start(**settings):
        readings, losses = [], []
        made.append(Robotiq(GripperSettings(**settings), readings.append, losses.append))
        made[-1].start()
        return made[-1], readings, losses

    yield start
    for gripper in made:
        gripper.close()


def test_a_gripper_on_its_own_adapter_activates_moves_and_reports_its_current(slave, running, eventually):
    gripper, readings, losses = running(connection='modbus', device=slave.device)
    assert eventually(lambda: bool(readings)), losses
    gripper.move(0.0)
    assert eventually(lambda: readings[-1].opening == 0.0)
    assert slave.outputs[2] == 255 << 8 | 128
    assert readings[-1].current_a == pytest.approx(0.12)
    assert readings[-1].target == 0.0
    assert not readings[-1].fault
    gripper.move(0.5)
    assert eventually(lambda: readings[-1].opening == pytest.approx(0.5, abs=0.01))


def test_a_port_without_a_gripper_is_named(running, eventually, tmp_path):
    _, _, losses = running(connection='modbus', device=str(tmp_path / 'nothing'))
    assert eventually(lambda: bool(losses))
    assert 'dialout' in losses[0]


def test_calibration_finds_the_ends_of_travel(cell, running, eventually):
    gripper, readings, _ = running(robot_ip=cell.host, open_count=0, closed_count=255)
    assert eventually(lambda: bool(readings))
    assert gripper.calibrate() == ''
    assert (gripper.settings.open_count, gripper.settings.closed_count) == (3, 228)
    gripper.move(0.0)
    assert eventually(lambda: readings[-1].opening == 0.0)
    assert math.isnan(readings[-1].current_a)


def test_calibration_says_when_something_is_between_the_fingers(cell, running, eventually):
    gripper, readings, _ = running(robot_ip=cell.host)
    assert eventually(lambda: bool(readings))
    gripper._travel = lambda connection, count: GripperRegisters(100, count, 2, 0, 3, 0.0)
    assert 'met something' in gripper.calibrate()
    assert gripper.settings.closed_count == 228


def test_a_gripper_that_lost_its_activation_says_so_and_is_not_moved_by_itself(cell, running, eventually):
    gripper, readings, _ = running(robot_ip=cell.host)
    assert eventually(lambda: bool(readings) and not readings[-1].fault)
    other = UrcapSocket(cell.host)
    other.set(ACT=0)
    assert eventually(lambda: readings[-1].fault == 7)
    count = len(readings)
    assert eventually(lambda: len(readings) > count + 100)
    assert other.get('ACT') == [0]
    other.close()
    assert gripper.activate() == ''
    assert eventually(lambda: not readings[-1].fault)


class FakeConnection:
    """A gripper that reports `registers` and notes what it is told."""

    def __init__(self, calls) -> None:
        self.calls = calls
        self.registers = GripperRegisters(3, 3, 3, 0, 3, 0.0)
        self.lost = False

    def read(self):
        if self.lost:
            raise OSError("the gripper answered '?'")
        return self.registers

    def go_to(self, count, speed, force):
        self.calls.append(count)

    def activate(self):
        self.calls.append('activate')

    def close(self):
        pass


def test_only_the_latest_target_counts_and_small_changes_are_not_sent(running, eventually, monkeypatch):
    sent = []

    monkeypatch.setattr(Robotiq, '_connect', lambda self: FakeConnection(sent))
    gripper, readings, _ = running()
    for opening in (0.5, 0.505, 0.5):
        count = len(readings)
        gripper.move(opening)
        assert eventually(lambda count=count: len(readings) > count + 2)
    gripper.move(7.0)
    assert eventually(lambda: len(sent) == 2)
    assert sent[1] == 3


@pytest.fixture
def lossy(running, monkeypatch):
    """A gripper whose connection the test may break and change, and which reconnects at once."""
    monkeypatch.setattr('groot_ros.hardware.robotiq.gripper._RETRY_S', 0.0)
    calls = []
    connection = FakeConnection(calls)
    monkeypatch.setattr(Robotiq, '_connect', lambda self: connection)
    gripper, readings, losses = running()
    return gripper, connection, calls, readings, losses


def test_after_an_outage_nothing_is_sent_until_a_new_command_comes(lossy, eventually):
    gripper, connection, calls, readings, losses = lossy
    gripper.move(0.0)
    assert eventually(lambda: calls == [228])
    connection.lost = True
    assert eventually(lambda: len(losses) > 3)
    connection.lost = False
    count = len(readings)
    assert eventually(lambda: len(readings) > count + 10)
    assert calls == [228]
    gripper.move(0.0)
    assert eventually(lambda: calls == [228, 228])


def test_a_forgotten_target_is_not_sent_and_a_new_one_is_sent_again(lossy, eventually):
    gripper, _, calls, readings, _ = lossy
    gripper.move(0.0)
    assert eventually(lambda: calls == [228])
    gripper.forget_target()
    count = len(readings)
    assert eventually(lambda: len(readings) > count + 5)
    assert calls == [228]
    gripper.move(0.0)
    assert eventually(lambda: calls == [228, 228])


def test_fingers_that_hold_an_object_are_not_calibrated_or_activated_unless_forced(lossy, eventually):
    gripper, connection, calls, readings, _ = lossy
    connection.registers = GripperRegisters(120, 228, 2, 0, 3, 0.0)
    assert eventually(lambda: bool(readings) and readings[-1].object_detected)
    assert 'hold an object' in gripper.calibrate()
    assert 'hold an object' in gripper.activate()
    assert calls == []
    assert gripper.activate(force=True) == ''
    assert calls == ['activate']


def test_the_fingers_do_not_move_before_the_start_and_a_failed_activation_is_not_repeated(
    monkeypatch, eventually
):
    monkeypatch.setattr('groot_ros.hardware.robotiq.gripper._RETRY_S', 0.0)
    calls, readings = [], []
    connection = FakeConnection(calls)
    connection.registers = GripperRegisters(3, 3, 0, 0, 0, 0.0)
    monkeypatch.setattr(Robotiq, '_connect', lambda self: connection)

    def fail():
        calls.append('activate')
        raise OSError('an emergency stop')

    connection.activate = fail
    gripper = Robotiq(GripperSettings(), readings.append, lambda reason: None)
    try:
        assert eventually(lambda: len(readings) > 5)
        assert calls == []
        gripper.start()
        assert eventually(lambda: calls == ['activate'])
        count = len(readings)
        assert eventually(lambda: len(readings) > count + 5)
        assert calls == ['activate']
    finally:
        gripper.close()


class Stranger:
    """Something on the gripper's port that answers each request with the next of some bytes."""

    def __init__(self, host, *answers) -> None:
        self.listener = socket.create_server((host, 0))
        self.port = self.listener.getsockname()[1]
        self.answers = answers
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        connection, _ = self.listener.accept()
        with connection, contextlib.suppress(OSError):
            for answer in self.answers:
                connection.recv(1024)
                connection.sendall(answer)
            connection.recv(1024)


@pytest.mark.parametrize(
    ('answer', 'reason'),
    [
        (b'POS ' + b'9' * 5000 + b'\n', 'a line without an end'),
        (b'x' * 10_000, 'a line without an end|more than it was asked'),
        (b'POS 3\n' * 2000, 'answered .* to GET PRE|more than it was asked'),
        (bytes(range(256)), 'answered|without an end'),
        (b'POS \xb2\n', 'answered'),
        (b'POS -3\n', 'answered'),
        (b'POS 3 4\n', 'answered'),
        (b'POS ?\n', 'answered'),
        (b'POS 3\nPRE 999\nOBJ 3\nFLT 0\nSTA 3\n', 'requested 999'),
        (b'', 'timed out|not answered'),
    ],
)
def test_garbage_of_a_gripper_is_one_error(loopback, monkeypatch, answer, reason):
    monkeypatch.setattr('groot_ros.hardware.robotiq.urcap._REPLY_S', 0.3)
    stranger = Stranger(loopback, answer)
    gripper = UrcapSocket(loopback, stranger.port)
    with pytest.raises(OSError, match=reason):
        gripper.read()
    gripper.close()
    stranger.thread.join()


def test_bytes_that_nobody_asked_for_are_an_error_at_the_next_request(loopback):
    stranger = Stranger(loopback, b'POS 3\nPOS 4\n')
    gripper = UrcapSocket(loopback, stranger.port)
    assert gripper.get('POS') == [3]
    with pytest.raises(OSError, match='nobody asked for'):
        gripper.get('POS')
    gripper.close()
    stranger.thread.join()


def test_no_error_ends_the_thread_of_the_gripper(lossy, eventually):
    _, connection, _, readings, losses = lossy
    assert eventually(lambda: bool(readings))
    connection.registers = None
    assert eventually(lambda: len(losses) > 1)
    assert 'AttributeError' in losses[0]
    connection.registers = GripperRegisters(3, 3, 3, 0, 3, 0.0)
    count = len(readings)
    assert eventually(lambda: len(readings) > count + 2)


def test_a_loss_is_told_once_however_often_the_device_comes_back():
    notice = LossNotice(quiet_s=10.0)
    assert notice.lost(0.0)
    assert not notice.lost(1.0)
    notice.works(2.0)
    notice.works(3.0)
    assert not notice.lost(4.0)
    notice.works(5.0)
    assert notice.lost(15.0)
    assert not notice.lost(100.0)

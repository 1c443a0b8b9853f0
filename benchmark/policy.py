# SPDX-License-Identifier: Apache-2.0
"""The policy server without a model: time to observe, to send an observation, and to make a command."""

import argparse
import threading
import time
from pathlib import Path

import numpy as np

from benchmark import signals
from benchmark.common import report
from benchmark.record_truth import Messages, Scenario, make_embodiment
from benchmark.signals import STATE_TYPES
from groot_ros.bags.message_types import typestore
from groot_ros.geometry import deltas_between
from groot_ros.inference.client import Client
from groot_ros.inference.server import Server
from groot_ros.message_fields import cdr_stamp_ns
from groot_ros.policies.action_decoder import decode_actions
from groot_ros.policies.builtin_policies import HoldPolicy
from groot_ros.policies.chunk_scheduler import ChunkScheduler, ScheduleSettings
from groot_ros.policies.local_backend import LocalBackend
from groot_ros.policies.observation_builder import ObservationBuilder
from groot_ros.policies.remote_policy import RemotePolicy

Figures = list[tuple[str, float, str]]
ROW_S = 0.05
HOST = '127.0.0.1'
PORT = 5577
REQUESTS = 300


def percentiles(name: str, seconds: list[float]) -> Figures:
    return [
        (f'{name}, p50', float(np.median(seconds)) * 1e3, 'ms'),
        (f'{name}, p99', float(np.quantile(seconds, 0.99)) * 1e3, 'ms'),
    ]


def overhead() -> Figures:
    """Times with one 640x480 camera: making and sending an observation, decoding the reply, a command."""
    scenario = Scenario(fps=20.0, camera_hz=(20.0,), seconds=3.0, size=(640, 480))
    embodiment = make_embodiment(scenario)
    builder = ObservationBuilder(embodiment, max_observation_age_s=5.0)
    newest_ns = 0
    msgtypes = {**STATE_TYPES, embodiment.cameras[0].topic: 'sensor_msgs/msg/Image'}
    for topic, _, cdr in Messages(scenario):
        newest_ns = max(newest_ns, cdr_stamp_ns(cdr))
        builder.add(topic, cdr_stamp_ns(cdr), typestore().deserialize_cdr(cdr, msgtypes[topic]))
    stop = threading.Event()
    server = Server(LocalBackend(HoldPolicy(embodiment), embodiment), HOST, PORT)
    thread = threading.Thread(target=server.run, args=(lambda: not stop.is_set(),))
    thread.start()
    policy = RemotePolicy(Client(HOST, PORT, 'n1.7'), embodiment)
    scheduler = ChunkScheduler(ScheduleSettings(ROW_S))
    observing_s = []
    inference_s = []
    commanding_s = []
    without_inference_s = []
    for request in range(REQUESTS):
        scheduler.start(signals.DOWN)
        began_s = time.perf_counter()
        observation = builder.observe(newest_ns, 'go on')
        observed_s = time.perf_counter()
        chunk = policy.infer(observation)
        replied_s = time.perf_counter()
        decoded = decode_actions(chunk, embodiment, scheduler.target(request))
        scheduler.add(decoded.poses, decoded.openings, request, request)
        pose, _ = scheduler.sample(request + ROW_S)
        deltas_between(np.array([signals.DOWN, pose]))
        done_s = time.perf_counter()
        observing_s.append(observed_s - began_s)
        inference_s.append(replied_s - observed_s)
        commanding_s.append(done_s - replied_s)
        without_inference_s.append(done_s - replied_s + observed_s - began_s)
    stop.set()
    thread.join()
    policy.close()
    return [
        *percentiles('observation sampled and its images turned to RGB', observing_s),
        *percentiles('made smaller, packed, there and back on loopback', inference_s),
        *percentiles('answer to first command', commanding_s),
        *percentiles('first and third together', without_inference_s),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures to a file')
    chosen = parser.parse_args()
    report('The policy server without a model', overhead(), chosen.json)


if __name__ == '__main__':
    main()

# SPDX-License-Identifier: Apache-2.0
"""Writes one episode as a rosbag2 folder (MCAP) whose data reach the disk every second."""

import json
import os
import threading
import time
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

from rosbags.interfaces import Connection, Qos
from rosbags.rosbag2 import StoragePlugin

from groot_ros.bags.mcap_writer import ChecksummedWriter
from groot_ros.bags.message_types import EPISODE_INFO_TOPIC, STRING_TYPE, definition, serialized, typestore
from groot_ros.bags.rosbag2_metadata import DEFAULT_QOS

_FLUSH_S = 0.5
_CUSTOM_DATA_LENGTH = 60


class EpisodeWriter:
    """Writes messages of absolute topics, and what is known of the episode as JSON in `episode_info`.

    The first `info` is written at once, so that a crash does not lose the task. The custom data of
    metadata.yaml only repeat what `ros2 bag info` should show, because rosbags breaks long strings there.
    `began_ns` and `ended_ns` are log times of an episode that is written later, as when it is recovered.
    """

    def __init__(
        self, path: Path, info: dict[str, Any], namespace: str = '/', began_ns: int | None = None
    ) -> None:
        self.path = path
        self.info: dict[str, Any] = {}
        self._writer = ChecksummedWriter(path, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connections: dict[str, Connection] = {}
        self._flushed_s = time.monotonic()
        self._closing = threading.Event()
        self._sync_failure: OSError | None = None
        self._syncing = threading.Thread(target=self._sync, name='sync', daemon=True)
        self._syncing.start()
        self._info_topic = f'{namespace}{EPISODE_INFO_TOPIC}'
        self._write_info(info, began_ns)

    @property
    def topics(self) -> Set[str]:
        """The absolute topics that are declared."""
        return self._connections.keys()

    def add_topic(self, topic: str, msgtype: str, offered: Sequence[Qos] = (DEFAULT_QOS,)) -> None:
        """Declares a topic, so that it is in the bag even without messages; does nothing if it is declared.

        `offered` is the quality of service of each of its publishers, which `ros2 bag play` offers again.
        """
        if topic not in self._connections:
            text, digest = definition(msgtype)
            self._connections[topic] = self._writer.add_connection(
                topic, msgtype, msgdef=text, rihs01=digest, offered_qos_profiles=offered
            )

    def write(self, topic: str, msgtype: str, stamp_ns: int, cdr: bytes) -> None:
        """Adds one serialized message of an absolute topic, with its log time `stamp_ns`.

        It reaches the disk with a later `flush`, or with `close`.
        """
        self.add_topic(topic, msgtype)
        self._writer.write(self._connections[topic], stamp_ns, cdr)

    def flush(self) -> None:
        """Gives what was written to the kernel, at most twice a second; another thread syncs it to the disk.

        Raises the OSError of that thread.
        """
        if time.monotonic() - self._flushed_s < _FLUSH_S:
            return
        self._flushed_s = time.monotonic()
        if self._sync_failure is not None:
            raise self._sync_failure
        # rosbags buffers a chunk of 1 MiB, and Python's file 8 KiB more: a crash would lose them.
        storage = self._writer.storage
        assert storage is not None
        if storage.chunk.bio.tell():
            storage.close_chunk()
        storage.bio.flush()

    def close(self, info: dict[str, Any], ended_ns: int | None = None) -> None:
        """Writes index and metadata.yaml, with `info` added to what the episode began with."""
        self._closing.set()
        self._syncing.join()
        self._write_info(info, ended_ns)
        for key in ('task', 'outcome', 'operator'):
            text = ' '.join(str(self.info.get(key, '')).split())
            self._writer.set_custom_data(key, text[:_CUSTOM_DATA_LENGTH])
        self._writer.close()

    def _write_info(self, info: dict[str, Any], log_ns: int | None) -> None:
        self.info.update(info)
        message = typestore().types[STRING_TYPE](json.dumps(info))
        log_ns = time.time_ns() if log_ns is None else log_ns
        self.write(self._info_topic, STRING_TYPE, log_ns, serialized(message, STRING_TYPE))

    def _sync(self) -> None:
        # A slow disk can take seconds for this, so the thread that writes must not wait for it.
        assert self._writer.storage is not None
        descriptor = os.dup(self._writer.storage.bio.fileno())
        try:
            while not self._closing.wait(_FLUSH_S):
                os.fdatasync(descriptor)
        except OSError as error:  # raised by the next `flush`, in the thread that can act on it
            self._sync_failure = error
        finally:
            os.close(descriptor)

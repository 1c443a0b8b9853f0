# SPDX-License-Identifier: Apache-2.0
"""Damaged bags of our recorder and of others: convert, inspect, recover."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from benchmark.record_truth import Messages, Scenario, make_embodiment, record
from benchmark.signals import STATE_TYPES
from fuzz.damage import damage_bytes, damage_json, torn_tail, truncate
from fuzz.target import Target, WrongAcceptError
from groot_ros.bags.message_types import EPISODE_INFO_TOPIC, IMAGE_TYPE, definition, typestore
from groot_ros.bags.reader import EpisodeBag
from groot_ros.cli.main import main

_SCENARIO = Scenario(camera_hz=(30.0,), seconds=1.2, size=(128, 96))
_EMBODIMENT = 'embodiment.yaml'
# Formats whose chunks have checksums: what is accepted of them must be equal to the original.
_CHECKED = ('ours', 'lz4')
_CONVERTED = ('ours', 'ours', *_CHECKED, 'sqlite', 'zstd', 'zstd_messages')


class _BagTarget(Target):
    """Seeds: one episode of our recorder, and the same messages as other recorders write them."""

    modules = ('groot_ros.dataset.convert', 'groot_ros.quality.trace_from_bag', 'groot_ros.bags.recover')

    def prepare(self, seeds: Path) -> None:
        """Writes a bag of each form."""
        embodiment = make_embodiment(_SCENARIO)
        (seeds / _EMBODIMENT).write_text(embodiment.text())
        record(_SCENARIO, seeds / 'ours')
        topics = {**STATE_TYPES, embodiment.cameras[0].topic: IMAGE_TYPE}
        write = _write_plain(seeds, topics)
        write('sqlite', StoragePlugin.SQLITE3, CompressionMode.NONE)
        write('zstd', StoragePlugin.MCAP, CompressionMode.STORAGE)
        write('zstd_messages', StoragePlugin.MCAP, CompressionMode.MESSAGE)
        _write_lz4(seeds, topics)

    def _damaged(self, random: np.random.Generator, seeds: Path, folder: Path, forms: tuple[str, ...]) -> str:
        """A damaged copy of a seed as `folder`/bag; returns which form it is of."""
        form = forms[random.integers(len(forms))]
        shutil.copytree(seeds / form, folder / 'bag')
        file = _data_file(folder / 'bag')
        if random.random() < 0.12:
            file = folder / 'bag/metadata.yaml'
        file.write_bytes(damage_bytes(random, file.read_bytes()))
        return form


class ConvertBag(_BagTarget):
    """`groot-ros convert` of a damaged bag. What is accepted of a bag with checksums has the same rows."""

    name = 'bag-convert'

    def prepare(self, seeds: Path) -> None:
        """Also converts each bag."""
        super().prepare(seeds)
        for form in _CHECKED:
            assert _convert(seeds, seeds / form, seeds / f'{form}_set') == 0

    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Converts a damaged bag."""
        form = self._damaged(
            random, seeds, folder, ('ours', 'ours', *_CHECKED, 'sqlite', 'zstd', 'zstd_messages')
        )
        code = _convert(seeds, folder / 'bag', folder / 'set')
        if code == 0 and form in _CHECKED and _content(folder / 'set') != _content(seeds / f'{form}_set'):
            raise WrongAcceptError(f'a damaged bag ({form}) gave another dataset')
        return code


class InspectBag(_BagTarget):
    """`groot-ros inspect` of a damaged bag, some of them with damaged JSON in their episode_info."""

    name = 'bag-inspect'

    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Inspects a damaged bag."""
        if random.random() < 0.3:
            _change_info(seeds / 'ours', folder / 'bag', lambda text: damage_json(random, text))
        else:
            self._damaged(random, seeds, folder, ('ours', 'ours', 'lz4', 'sqlite', 'zstd'))
        return main(['inspect', str(folder / 'bag'), '--embodiment', str(seeds / _EMBODIMENT)])


class RecoverBag(_BagTarget):
    """`groot-ros recover` of a torn bag of ours: every whole chunk is saved, and nothing is invented."""

    name = 'bag-recover'

    def run_case(self, random: np.random.Generator, seeds: Path, folder: Path) -> int:
        """Recovers a torn or damaged bag."""
        bag = folder / 'bag'
        shutil.copytree(seeds / 'ours', bag)
        (bag / 'metadata.yaml').unlink()
        file = _data_file(bag)
        damage = (truncate, torn_tail, damage_bytes)[random.integers(3)]
        file.write_bytes(damage(random, file.read_bytes()))
        code = main(['recover', str(bag)])
        if code == 0 and not _messages(bag) <= _messages(seeds / 'ours'):
            raise WrongAcceptError('the recovered bag has messages that were never recorded')
        return code


def _write_plain(
    seeds: Path, topics: dict[str, str]
) -> Callable[[str, StoragePlugin, CompressionMode], None]:
    def write(name: str, plugin: StoragePlugin, mode: CompressionMode) -> None:
        writer = Writer(seeds / name, version=9, storage_plugin=plugin)
        writer.set_compression(mode, CompressionFormat.ZSTD)
        with writer:
            connections = {
                topic: writer.add_connection(f'/{topic}', msgtype, typestore=typestore())
                for topic, msgtype in topics.items()
            }
            for topic, arrival_ns, cdr in Messages(_SCENARIO):
                writer.write(connections[topic], arrival_ns, cdr)

    return write


def _write_lz4(seeds: Path, topics: dict[str, str]) -> None:
    """As rosbag2 writes it, with the checksums of the MCAP library."""
    shutil.copytree(seeds / 'zstd', seeds / 'lz4')
    with _data_file(seeds / 'lz4').open('wb') as stream:
        writer = McapWriter(stream, compression=CompressionType.LZ4, enable_data_crcs=True)
        writer.start('ros2', 'fuzz')
        channels = {}
        for topic, msgtype in topics.items():
            schema = writer.register_schema(msgtype, 'ros2msg', definition(msgtype)[0].encode())
            channels[topic] = writer.register_channel(f'/{topic}', 'cdr', schema)
        for topic, arrival_ns, cdr in Messages(_SCENARIO):
            writer.add_message(channels[topic], arrival_ns, cdr, arrival_ns)
        writer.finish()


def _data_file(bag: Path) -> Path:
    (file,) = [*bag.glob('*.mcap'), *bag.glob('*.db3')]
    return file


def _convert(seeds: Path, bag: Path, output: Path) -> int:
    embodiment = str(seeds / _EMBODIMENT)
    return main(['convert', str(bag), '--output', str(output), '--embodiment', embodiment, '--task', 'x'])


def _content(dataset: Path) -> dict[str, str]:
    """Hashes of rows and videos by the names of their files."""
    files = [file for name in ('data', 'videos') for file in (dataset / name).rglob('*') if file.is_file()]
    return {str(file.relative_to(dataset)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _messages(bag: Path) -> set[tuple[str, int, bytes]]:
    with EpisodeBag(bag) as opened:
        return {
            (message.topic, message.log_ns, message.cdr)
            for message in opened.all_messages()
            if not message.topic.endswith(EPISODE_INFO_TOPIC)
        }


def _change_info(source: Path, target: Path, change: Callable[[str], str]) -> None:
    """A bag without any fault but the text of its first `episode_info`."""
    target.mkdir()
    shutil.copytree(source, target, dirs_exist_ok=True)
    with EpisodeBag(source) as bag:
        messages = list(bag.all_messages())
        types = bag.types
    shutil.rmtree(target)
    string = typestore().types['std_msgs/msg/String']
    changed = False
    with Writer(target, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections = {
            topic: writer.add_connection(topic, msgtype, typestore=typestore())
            for topic, msgtype in types.items()
        }
        for message in messages:
            cdr = message.cdr
            if message.topic.endswith(EPISODE_INFO_TOPIC) and not changed:
                changed = True
                text = change(message.decode().data)
                cdr = bytes(typestore().serialize_cdr(string(text), message.msgtype))
            writer.write(connections[message.topic], message.log_ns, cdr)

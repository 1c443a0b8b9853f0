# SPDX-License-Identifier: Apache-2.0
"""Damaged bytes in bags: checksums find them, lengths are not believed, and recover saves what is whole."""

import json
import re
import struct
import zlib

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.records import Chunk, Footer
from mcap.stream_reader import StreamReader
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter

from groot_ros.bags import decompress, mcap_file
from groot_ros.bags.mcap_writer import ChecksummedMcap
from groot_ros.bags.message_types import STRING_TYPE, definition, serialized, typestore
from groot_ros.bags.reader import EpisodeBag
from groot_ros.bags.recover import recover_bag, whole_messages
from groot_ros.cli.main import main
from groot_ros.errors import GrootRosError

NOISE = np.random.default_rng(0).bytes(5000)


@pytest.fixture
def bag(tmp_path, synthetic, monkeypatch):
    """A bag of ours with a chunk for each 10 kB, as the recorder writes one for each half second."""
    write = ChecksummedMcap.write

    def in_small_chunks(self, *arguments):
        write(self, *arguments)
        if self.chunk.bio.tell() > 10_000:
            self.close_chunk()

    monkeypatch.setattr(ChecksummedMcap, 'write', in_small_chunks)
    synthetic(seconds=1.0).record(tmp_path / 'bag')
    return tmp_path / 'bag'


def mcap_of(bag):
    return bag / 'bag.mcap'


def read_all(bag):
    with EpisodeBag(bag) as opened:
        return [(m.topic, m.log_ns, m.cdr) for m in opened.all_messages()]


def chunks_of(file):
    with file.open('rb') as stream:
        return [
            record for record in StreamReader(stream, emit_chunks=True).records if isinstance(record, Chunk)
        ]


def test_the_checksums_are_those_that_the_mcap_library_checks(bag):
    chunks = chunks_of(mcap_of(bag))
    assert len(chunks) > 3
    assert all(zlib.crc32(chunk.data) == chunk.uncompressed_crc for chunk in chunks)
    content = mcap_of(bag).read_bytes()
    with mcap_of(bag).open('rb') as stream:
        (footer,) = [record for record in StreamReader(stream).records if isinstance(record, Footer)]
        assert footer.summary_crc == zlib.crc32(content[footer.summary_start : -12])
        stream.seek(0)
        messages = make_reader(stream, validate_crcs=True).iter_messages()
        assert len(list(messages)) == len(read_all(bag))


def test_any_flipped_bit_is_refused_or_changes_nothing(bag):
    """The bytes that may differ are indexes and names that no reader of ours uses."""
    whole = read_all(bag)
    content = mcap_of(bag).read_bytes()
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(250):
        damaged = bytearray(content)
        damaged[random.integers(len(content))] ^= 1 << random.integers(8)
        mcap_of(bag).write_bytes(damaged)
        try:
            assert read_all(bag) == whole
        except GrootRosError as error:
            assert str(bag) in str(error)
            refused += 1
    in_chunks = sum(len(chunk.data) for chunk in chunks_of_content(content, bag))
    assert refused >= 0.9 * 250 * in_chunks / len(content)


def chunks_of_content(content, bag):
    mcap_of(bag).write_bytes(content)
    return chunks_of(mcap_of(bag))


def test_a_message_that_the_index_counts_and_the_file_lacks_is_missed(bag):
    text = (bag / 'metadata.yaml').read_text()
    (bag / 'metadata.yaml').write_text(
        re.sub(r'- message_count: (\d+)', r'- message_count: 1\1', text, count=1)
    )
    with pytest.raises(
        GrootRosError, match=r'bag is damaged: it has \d+ messages of /.*, and its index says'
    ):
        read_all(bag)


def saved(file):
    return [(channel.topic, message.log_time, message.data) for channel, _, message in whole_messages(file)]


@pytest.mark.parametrize(
    'tail', [b'', bytes(5000), np.random.default_rng(0).bytes(5000)], ids=['', '0', 'noise']
)
def test_every_whole_chunk_of_a_torn_file_is_saved(bag, tail):
    content = mcap_of(bag).read_bytes()
    expected = []
    with mcap_of(bag).open('rb') as stream:
        for record in mcap_file.whole_records(stream, len(content)):
            if record.opcode == mcap_file.CHUNK:
                expected.append(record.end)
    complete = saved(mcap_of(bag))
    offsets = {
        *range(0, len(content), 997),
        *(end + near for end in expected for near in (-1, 0, 1, 5, 9, 12)),
    }
    counts: list[int] = []
    for end in [0, *expected]:
        mcap_of(bag).write_bytes(content[:end])
        counts.append(len(saved(mcap_of(bag))))
    assert counts == sorted(set(counts))
    assert counts[-1] == len(complete)
    for offset in sorted(offsets):
        mcap_of(bag).write_bytes(content[:offset] + tail)
        found = saved(mcap_of(bag))
        assert found == complete[: len(found)]
        # More where the missing bytes happened to be those of the tail.
        assert len(found) >= counts[sum(end <= offset for end in expected)]


def test_a_damaged_bag_is_recovered_up_to_the_damage(bag, capsys):
    log_times = {log_ns for _, log_ns, _ in read_all(bag)}
    content = bytearray(mcap_of(bag).read_bytes())
    content[len(content) // 2] ^= 1
    mcap_of(bag).write_bytes(content)
    with pytest.raises(GrootRosError, match=r'is damaged .* s after its beginning .*groot-ros recover'):
        read_all(bag)
    assert main(['recover', str(bag)]) == 0
    recovered = read_all(bag)
    assert len(recovered) > 100
    assert {log_ns for _, log_ns, _ in recovered} <= log_times  # none of them is the time of the recovery
    with EpisodeBag(bag) as opened:
        assert opened.info['recovered']
    assert main(['recover', str(bag)]) == 1
    assert 'is complete' in capsys.readouterr().err
    mcap_of(bag).write_bytes(content)
    assert main(['recover', str(bag)]) == 1
    assert 'bag.torn exists already' in capsys.readouterr().err


def test_a_power_cut_leaves_zeros_where_data_should_be(bag):
    content = mcap_of(bag).read_bytes()
    (bag / 'metadata.yaml').unlink()
    mcap_of(bag).write_bytes(content[: len(content) // 2] + bytes(len(content) // 2))
    assert recover_bag(bag).messages > 50
    assert len(read_all(bag)) > 50


@pytest.fixture
def foreign(tmp_path, bag):
    """A compressed bag of another recorder; `write` makes its file."""

    def write(compression, text='x', topic='/text', **options):
        with mcap_of(bag).open('wb') as stream:
            writer = McapWriter(stream, compression=compression, **options)
            writer.start('ros2', 'test')
            schema = writer.register_schema(STRING_TYPE, 'ros2msg', definition(STRING_TYPE)[0].encode())
            channel = writer.register_channel(topic, 'cdr', schema)
            message = serialized(typestore().types[STRING_TYPE](text), STRING_TYPE)
            for index in range(10):
                writer.add_message(channel, index, message, index)
            writer.add_attachment(0, 0, 'notes.txt', 'text/plain', b'some notes')
            writer.finish()
        metadata = json.dumps(
            {
                'rosbag2_bagfile_information': {
                    'version': 5,
                    'storage_identifier': 'mcap',
                    'relative_file_paths': ['bag.mcap'],
                    'duration': {'nanoseconds': 9},
                    'starting_time': {'nanoseconds_since_epoch': 0},
                    'message_count': 10,
                    'topics_with_message_count': [
                        {
                            'topic_metadata': {
                                'name': topic,
                                'type': STRING_TYPE,
                                'serialization_format': 'cdr',
                                'offered_qos_profiles': '',
                            },
                            'message_count': 10,
                        }
                    ],
                    'compression_format': '',
                    'compression_mode': '',
                }
            }
        )
        (bag / 'metadata.yaml').write_text(metadata)
        return bag

    return write


@pytest.mark.parametrize('compression', list(CompressionType))
def test_bags_of_the_mcap_library_are_read(foreign, compression):
    assert len(read_all(foreign(compression, enable_data_crcs=True))) == 10


@pytest.mark.parametrize('compression', [CompressionType.ZSTD, CompressionType.LZ4])
def test_a_chunk_that_unpacks_to_more_than_it_declares_is_refused(foreign, compression):
    bag = foreign(compression, text='0' * 300_000, chunk_size=1 << 30)
    content = bytearray(mcap_of(bag).read_bytes())
    size = struct.pack('<Q', 1000)
    with mcap_of(bag).open('rb') as stream:
        for record in mcap_file.whole_records(stream, len(content)):
            if record.opcode == mcap_file.CHUNK:
                content[record.start + 16 : record.start + 24] = size
            elif record.opcode == mcap_file.CHUNK_INDEX:
                content[record.end - 8 : record.end] = size
    content[-12:-8] = bytes(4)  # the checksum of the summary
    mcap_of(bag).write_bytes(content)
    with pytest.raises(GrootRosError, match=r'expected 1000 bytes, got 1001'):
        read_all(bag)


@pytest.mark.parametrize('size', [200 << 20, 1 << 40, (1 << 64) - 1])
def test_a_size_that_no_recorder_writes_is_not_allocated(foreign, size):
    bag = foreign(CompressionType.ZSTD)
    content = mcap_of(bag).read_bytes()
    (chunk,) = [r for r in mcap_file.whole_records(mcap_of(bag).open('rb'), len(content)) if r.opcode == 6]
    at = chunk.start + 16
    mcap_of(bag).write_bytes(content[:at] + struct.pack('<Q', size) + content[at + 8 :])
    with pytest.raises(GrootRosError, match=r'declares .* bytes, and at most'):
        read_all(bag)


@pytest.mark.parametrize('what', ['attachment', 'data section'])
def test_checksums_of_attachments_and_of_the_data_section_are_checked(foreign, what):
    bag = foreign(CompressionType.NONE, enable_data_crcs=what == 'data section')
    content = mcap_of(bag).read_bytes()
    old = b'some notes' if what == 'attachment' else b'std_msgs/msg/String'
    mcap_of(bag).write_bytes(content.replace(old, old.upper(), 1))
    with pytest.raises(GrootRosError, match=f'the checksum of the {what}'):
        read_all(bag)


def test_a_compressed_message_has_a_largest_size():
    bomb = decompress.zstd.compress(bytes(300 << 20))
    with pytest.raises(ValueError, match='more than 128 MiB'):
        decompress.unpack_message(bomb)


def test_chunks_that_overlap_in_time_are_not_all_held():
    chunk = mcap_file.ChunkHeader(0, 100, 100 << 20, 0, 'zstd', 10)
    mcap_file._check_overlap([chunk] * 2)
    with pytest.raises(ValueError, match='overlap in time'):
        mcap_file._check_overlap([chunk] * 3)


INFOS = {
    'no JSON': ('{', 'is not JSON'),
    'brackets': ('[' * 100_000, 'is not JSON'),
    'a list': ('[1]', 'is wrong: give keys with values, not list'),
    'a task that is a number': ('{"task": 5}', 'wrong at task'),
    'no rate': ('{"fps": NaN}', 'wrong at fps'),
    'counts': ('{"counts": {"topics": {"tcp_pose": null}}}', 'wrong at counts.topics.tcp_pose'),
}


@pytest.mark.parametrize('case', INFOS)
def test_an_odd_episode_info_is_one_sentence(foreign, case):
    text, reason = INFOS[case]
    bag = foreign(CompressionType.NONE, text, '/episode_info')
    with pytest.raises(GrootRosError, match=reason) as refused:
        EpisodeBag(bag)
    assert str(bag) in str(refused.value)

# SPDX-License-Identifier: Apache-2.0
"""Bad input to the converter: an error that names the thing and what to do, and nothing half-written."""

import errno
import json
import shutil

import numpy as np
import pytest

from groot_ros.bags.writer import EpisodeWriter
from groot_ros.cli.main import main
from groot_ros.dataset.convert import convert
from groot_ros.dataset.options import ConversionOptions
from groot_ros.dataset.writers.lerobot_v2 import video_file
from groot_ros.embodiment import parse_embodiment
from groot_ros.errors import GrootRosError


def refused(sources, output, embodiment, match, **options):
    with pytest.raises(GrootRosError, match=match):
        convert(sources, output, embodiment, **options)
    assert not output.exists()
    assert [path for path in output.parent.iterdir() if path.name.endswith('.partial')] == []


def test_a_path_that_does_not_exist(tmp_path, embodiment):
    refused([tmp_path / 'nothing'], tmp_path / 'set', embodiment, 'does not exist')


def test_a_folder_without_bags(tmp_path, embodiment):
    (tmp_path / 'empty').mkdir()
    refused([tmp_path / 'empty'], tmp_path / 'set', embodiment, 'holds no bag')


def test_an_output_that_exists_is_left_alone(tmp_path, embodiment, synthetic):
    synthetic().record(tmp_path / 'bag')
    (tmp_path / 'set').mkdir()
    (tmp_path / 'set' / 'mine').write_text('precious')
    with pytest.raises(GrootRosError, match='exists already'):
        convert([tmp_path / 'bag'], tmp_path / 'set', embodiment)
    assert (tmp_path / 'set' / 'mine').read_text() == 'precious'


def test_a_bag_without_a_needed_topic_is_named_with_what_it_has(tmp_path, embodiment, synthetic):
    writer = EpisodeWriter(tmp_path / 'bag', {'task': 'x'})
    writer.close({'outcome': 'success'})
    refused([tmp_path / 'bag'], tmp_path / 'set', embodiment, r'has no joint_states.*it has /episode_info')


def test_an_empty_bag(tmp_path, embodiment):
    from rosbags.rosbag2 import StoragePlugin, Writer

    with Writer(tmp_path / 'bag', version=9, storage_plugin=StoragePlugin.MCAP):
        pass
    refused([tmp_path / 'bag'], tmp_path / 'set', embodiment, 'is empty')


def test_an_episode_shorter_than_the_horizon(tmp_path, embodiment, synthetic):
    synthetic(seconds=0.5).record(tmp_path / 'bag')
    refused([tmp_path / 'bag'], tmp_path / 'set', embodiment, '9 rows, fewer than the horizon of 16')


def test_a_torn_bag_points_to_recover(tmp_path, embodiment, synthetic):
    synthetic().record(tmp_path / 'bag')
    (tmp_path / 'bag' / 'metadata.yaml').unlink()
    refused([tmp_path / 'bag'], tmp_path / 'set', embodiment, 'groot-ros recover')


def test_a_truncated_file_points_to_recover(tmp_path, embodiment, synthetic):
    synthetic().record(tmp_path / 'bag')
    file = next((tmp_path / 'bag').glob('*.mcap'))
    file.write_bytes(file.read_bytes()[:-2000])
    refused([tmp_path / 'bag'], tmp_path / 'set', embodiment, 'groot-ros recover')


def test_a_camera_that_ran_at_another_rate(tmp_path, embodiment, synthetic):
    synthetic(seconds=2).record(tmp_path / 'bag')
    other = parse_embodiment(embodiment.text().replace('fps: 20.0', 'fps: 25.0'), 'other')
    refused([tmp_path / 'bag'], tmp_path / 'set', other, r'recorded at 20.00 frames/s.*says 25')


def test_a_bad_bag_can_be_left_out(tmp_path, embodiment, synthetic):
    synthetic(seconds=1.5).record(tmp_path / 'bags' / 'a')
    synthetic(seconds=0.5).record(tmp_path / 'bags' / 'b')
    refused([tmp_path / 'bags'], tmp_path / 'set', embodiment, 'horizon')
    report = convert([tmp_path / 'bags'], tmp_path / 'set', embodiment, ConversionOptions(skip_bad=True))
    assert report.episodes == 1
    assert list(report.skipped) == [str(tmp_path / 'bags' / 'b')]


def test_an_interrupted_conversion_leaves_no_dataset_and_goes_on_where_it_stopped(
    tmp_path, embodiment, synthetic
):
    for index in range(3):
        synthetic(seconds=1.5).record(tmp_path / 'bags' / f'episode_{index:06d}')

    def interrupt(parts, count):
        yield next(iter(parts))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert([tmp_path / 'bags'], tmp_path / 'set', embodiment, progress=interrupt)
    assert not (tmp_path / 'set').exists()
    (done,) = (tmp_path / '.set.partial/parts').glob('*/0_zed_camera.mp4')
    made_ns = done.stat().st_mtime_ns
    convert([tmp_path / 'bags'], tmp_path / 'set', embodiment)
    convert([tmp_path / 'bags'], tmp_path / 'whole', embodiment)
    assert video_file(tmp_path / 'set', 'observation.images.zed_camera', 0).stat().st_mtime_ns == made_ns
    assert files_of(tmp_path / 'set') == files_of(tmp_path / 'whole')
    assert not (tmp_path / '.set.partial').exists()


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob('*'))
        if path.is_file()
    }


def test_a_dataset_does_not_depend_on_the_number_of_workers(tmp_path, embodiment, synthetic):
    for index in range(3):
        synthetic(seconds=1.5).record(tmp_path / 'bags' / f'episode_{index:06d}')
    (tmp_path / 'bags' / 'episode_000001' / 'metadata.yaml').unlink()
    for workers in (1, 2):
        report = convert(
            [tmp_path / 'bags'],
            tmp_path / f'set_{workers}',
            embodiment,
            ConversionOptions(skip_bad=True, workers=workers),
        )
        assert (report.episodes, len(report.skipped)) == (2, 1)
    assert files_of(tmp_path / 'set_1') == files_of(tmp_path / 'set_2')


def test_a_gap_in_a_stream_is_named(tmp_path, embodiment, synthetic):
    episode = synthetic(seconds=2)
    messages = [m for m in episode.messages() if not (m[1] == 'tcp_pose' and 0.8e9 < m[0] < 1.3e9)]
    episode.messages = lambda: iter(messages)
    episode.record(tmp_path / 'bag')
    refused([tmp_path / 'bag'], tmp_path / 'set', embodiment, 'tcp_pose has nothing nearer')
    shutil.rmtree(tmp_path / 'bag')


def test_an_episode_whose_verdict_is_fail_is_left_out_by_default(tmp_path, embodiment, synthetic):
    for index in range(2):
        synthetic().record(tmp_path / 'bags' / f'episode_{index:06d}')
    verdict = {
        'verdict': 'fail',
        'failure': '',
        'findings': [{'level': 'fail', 'text': 'the image is frozen'}],
    }
    (tmp_path / 'bags' / 'episode_000000' / 'verdict.json').write_text(json.dumps(verdict))
    report = convert([tmp_path / 'bags'], tmp_path / 'set', embodiment)
    assert (report.episodes, list(report.failed.values())) == (1, ['the image is frozen'])
    assert (
        convert(
            [tmp_path / 'bags'], tmp_path / 'all', embodiment, ConversionOptions(keep_failed=True)
        ).episodes
        == 2
    )
    assert (
        json.loads((tmp_path / 'all/meta/conversion.json').read_text())['episodes'][0]['notes']['verdict']
        == 'fail'
    )
    refused(
        [tmp_path / 'bags' / 'episode_000000'],
        tmp_path / 'none',
        embodiment,
        'the image is frozen.*--keep-failed',
    )


UNREADABLE = {
    'empty': '',
    'cut': '{"verdict": "fa',
    'odd': '{"verdict": "fine"}',
    'without': '{"findings": []}',
    'brackets': '[' * 100_000,
}


def bright(entries):
    random = np.random.default_rng(0)
    for entry in entries:
        if entry[1] == 'zed/image':
            entry[2].data = random.integers(100, 200, len(entry[2].data), np.uint8)
    return entries


@pytest.mark.parametrize('text', UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_verdict_is_made_again_from_the_bag(tmp_path, embodiment, synthetic, text):
    """A failed episode whose verdict was cut off by a power cut is no training data."""
    synthetic(seconds=2.0, missing_frames=range(10, 30)).record(tmp_path / 'bags' / 'frozen')
    good = synthetic(seconds=1.5)
    good.record(tmp_path / 'bags' / 'good', entries=bright(good.entries()))
    for name in ('frozen', 'good'):
        (tmp_path / 'bags' / name / 'verdict.json').write_text(text)
    report = convert([tmp_path / 'bags'], tmp_path / 'set', embodiment)
    assert report.episodes == 1
    assert list(report.failed) == [str(tmp_path / 'bags' / 'frozen')]
    lines = '\n'.join(report.summary_lines())
    assert 'good: verdict.json cannot be read, so the bag was judged again' in lines


def test_an_unreadable_verdict_of_an_unreadable_bag_keeps_it_out(tmp_path, embodiment, synthetic):
    for name in ('bad', 'good'):
        synthetic().record(tmp_path / 'bags' / name)
    (tmp_path / 'bags' / 'bad' / 'verdict.json').write_text('')
    (tmp_path / 'bags' / 'bad' / 'metadata.yaml').write_text('')
    report = convert([tmp_path / 'bags'], tmp_path / 'set', embodiment)
    (reason,) = report.failed.values()
    assert 'cannot be made again' in reason


def test_only_successes_are_converted_unless_others_are_asked_for(tmp_path, embodiment, synthetic, capsys):
    outcomes = ['success', 'failure', 'interrupted', 'failure']
    for index, outcome in enumerate(outcomes):
        synthetic(place_m=index / 100).record(tmp_path / 'bags' / f'{index}', outcome=outcome)
    arguments = ['convert', str(tmp_path / 'bags'), '--output']
    assert main([*arguments, str(tmp_path / 'set')]) == 0
    assert 'left out: 2 failure, 1 interrupted\n' in capsys.readouterr().out
    assert len((tmp_path / 'set/meta/episodes.jsonl').read_text().splitlines()) == 1
    assert main([*arguments, str(tmp_path / 'all'), '--outcomes', 'success,failure']) == 0
    assert 'left out: 1 interrupted\n' in capsys.readouterr().out
    assert len((tmp_path / 'all/meta/episodes.jsonl').read_text().splitlines()) == 3
    assert main([*arguments, str(tmp_path / 'some'), '--outcomes', 'success,good']) == 1
    assert "The outcome 'good' is not known" in capsys.readouterr().err
    assert main(['convert', str(tmp_path / 'bags/1'), '--output', str(tmp_path / 'none')]) == 1
    assert '1 failure): --outcomes success,failure takes them too' in capsys.readouterr().err


def test_a_disk_without_hard_links_takes_copies(tmp_path, embodiment, synthetic, monkeypatch):
    synthetic().record(tmp_path / 'bag')
    convert([tmp_path / 'bag'], tmp_path / 'linked', embodiment)

    def refuse(*_):
        raise PermissionError(errno.EPERM, 'Operation not permitted')

    monkeypatch.setattr('os.link', refuse)
    convert([tmp_path / 'bag'], tmp_path / 'copied', embodiment)
    assert files_of(tmp_path / 'copied') == files_of(tmp_path / 'linked')

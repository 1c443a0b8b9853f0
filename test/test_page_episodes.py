# SPDX-License-Identifier: Apache-2.0
"""Saved episodes on the operator's page: table, thumbnail, video, curves, and the moment of each reason."""

import json
import re

import av
import cv2
import numpy as np
import pytest
from yarl import URL

from benchmark.page_harness import MARKUP, TOKEN, with_server
from groot_ros.errors import GrootRosError
from groot_ros.operator_page.commands import OrderError, parse_order
from groot_ros.operator_page.episodes import EpisodeLibrary, LastVerdict
from groot_ros.quality.moments import find_moments
from groot_ros.quality.saved_verdict import SavedFinding
from groot_ros.quality.trace import EpisodeTrace
from groot_ros.quality.verdict import Bounds, Thresholds, judge, load_thresholds
from groot_ros.recording.episode_folder import EpisodeFolder, IndexEntry

MISSING = range(10, 18)


def save(folder, name, recorded, task='move the cube', outcome='success') -> None:
    """Writes verdict and index of a recorded bag, as the recorder does."""
    info = {'task': task, 'outcome': outcome}
    # The synthetic camera's brightness begins at 0 again and again.
    thresholds = Thresholds({**load_thresholds().root, 'black_share': Bounds()})
    verdict = judge(recorded, thresholds, info, name)
    verdict.save(folder / name)
    index = EpisodeFolder(folder)
    index.add(IndexEntry(name, task, outcome, verdict.verdict, verdict.rows, verdict.duration_s))
    index.close()


@pytest.fixture(scope='module')
def folder(tmp_path_factory, make_synthetic):
    """Two episodes: a good one, and one whose camera gave no image for rows 10 to 17."""
    made = tmp_path_factory.mktemp('episodes')
    for number, missing in enumerate([(), MISSING]):
        name = f'episode_{number:06d}'
        episode = make_synthetic(seconds=2.5, missing_frames=missing)
        save(made, name, episode.record(made / name, task=MARKUP), MARKUP)
    return made


@pytest.fixture
def library(folder):
    made = EpisodeLibrary(folder)
    yield made
    made.close()


def test_the_table_has_the_newest_first_with_all_that_the_recorder_noted(library):
    newest, oldest = library.table()
    assert (newest['name'], oldest['name']) == ('episode_000001', 'episode_000000')
    assert oldest['verdict'] == 'pass' and oldest['is_usable']
    assert newest['verdict'] == 'fail' and not newest['is_usable']
    assert newest['task'] == MARKUP
    assert oldest['duration_s'] == pytest.approx(2.5, abs=0.11)


def test_a_thumbnail_is_a_small_image(library):
    image = cv2.imdecode(np.frombuffer(library.thumbnail('episode_000000'), np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[1] == 160


def test_a_video_has_a_frame_for_each_row_and_is_made_once(library):
    path = library.video('episode_000000', 0)
    replay = library.replay('episode_000000')
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == replay['rows']
    assert float(frames[10].pts * frames[10].time_base) == pytest.approx(10 / replay['fps'])
    assert library.video('episode_000000', 0) == path
    with pytest.raises(GrootRosError, match='no camera number 7'):
        library.video('episode_000000', 7)


def test_videos_are_deleted_with_the_library_and_at_most_eight_are_kept(folder, monkeypatch):
    from groot_ros.operator_page import episodes

    monkeypatch.setattr(episodes, '_MAX_KEPT', 1)
    one = EpisodeLibrary(folder)
    first = one.video('episode_000000', 0)
    second = one.video('episode_000001', 0)
    assert (first.exists(), second.exists()) == (False, True)
    one.close()
    assert not second.exists()


def test_the_curves_have_a_number_for_each_row_and_their_units(library):
    replay = library.replay('episode_000000')
    for panel in replay['panels']:
        for series in panel['series']:
            assert len(series['values']) == replay['rows']
    units = {panel['unit'] for panel in replay['panels']}
    assert {'m', 'rad', '0 closed, 1 open'} <= units
    json.dumps(replay, allow_nan=False)


def test_a_long_episode_has_fewer_points(library, monkeypatch):
    from groot_ros.operator_page import episodes

    monkeypatch.setattr(episodes, '_MAX_POINTS', 10)
    replay = library.replay('episode_000000')
    panel = replay['panels'][0]
    assert panel['step'] == -(-replay['rows'] // 10)
    assert len(panel['series'][0]['values']) <= 10


def test_each_reason_has_the_moment_where_it_occurred(library):
    reasons = library.replay('episode_000001')['reasons']
    fps = library.replay('episode_000001')['fps']
    assert reasons[0]['level'] == 'fail'
    filled = next(reason for reason in reasons if 'without a new frame' in reason['text'])
    (moment,) = filled['moments']
    assert moment == pytest.approx([MISSING.start / fps, MISSING.stop / fps], abs=1.5 / fps)
    gap = next(reason for reason in reasons if 'max gap of zed/image' in reason['text'])
    assert gap['moments'][0] == pytest.approx(moment, abs=2 / fps)


def moments(trace, check, subject='', **limits):
    finding = SavedFinding(level='warn', text='', check=check, subject=subject, **limits)
    return [(round(each.begin_s, 3), round(each.end_s, 3)) for each in find_moments(trace, finding)]


def test_moments_of_every_check_lie_in_the_episode_and_strange_subjects_have_none(synthetic, tmp_path):
    trace = synthetic(seconds=1.5, missing_frames=MISSING).record(tmp_path / 'bag')
    length_s = trace.rows / trace.embodiment.fps
    checks = [finding.check for finding in judge(trace, load_thresholds(), {}, 'bag').findings]
    for check in checks:
        for subject in ('', 'zed', 'arm', 'zed/image', MARKUP):
            for begin_s, end_s in moments(trace, check, subject, warn=0.0):
                assert 0 <= begin_s < end_s <= length_s
    assert moments(trace, 'unknown') == moments(trace, 'drift_ppm') == []
    assert moments(trace, 'black_share', 'another camera', warn=0.0) == []


def test_an_idle_begin_and_end_and_a_jump_are_found(synthetic, tmp_path):
    episode = synthetic(seconds=2.0)
    move = episode.motion.pose
    # Still for half a second, then a jump, then still again.
    episode.motion.pose = lambda t: move(0.0 if t < 0.6 else 10.0)
    for name in ('joints', 'velocities'):
        known = getattr(episode.motion, name)
        setattr(episode.motion, name, lambda t, known=known: known(0.0))
    episode.motion.opening = lambda t: 1.0
    trace = episode.record(tmp_path / 'bag')
    ((begin_s, end_s),) = moments(trace, 'tcp_speed_m_s', warn=1.5)
    assert end_s - begin_s == pytest.approx(1 / trace.embodiment.fps, abs=1e-3)
    assert moments(trace, 'idle_head_s', warn=0.1) == [(0.0, begin_s)]
    assert moments(trace, 'idle_tail_s', warn=0.1) == [(end_s, trace.rows / trace.embodiment.fps)]


def test_black_images_are_found_one_by_one(synthetic, tmp_path):
    trace = synthetic(seconds=1.5).record(tmp_path / 'bag')
    found = moments(trace, 'black_share', trace.embodiment.cameras[0].name, warn=0.1)
    dark = np.flatnonzero(trace.brightness[:, 0] < 8) / trace.embodiment.fps
    assert len(dark) > 3
    assert [begin_s for begin_s, _ in found] == pytest.approx(dark.tolist(), abs=1e-3)


def test_an_empty_trace_has_no_moments(embodiment):
    assert moments(EpisodeTrace(embodiment, ['tcp_pose']), 'gap_s', 'tcp_pose', warn=0.0) == []


@pytest.mark.parametrize(
    'name', ['', '..', '../episodes', 'episode_1', 'episode_000000/..', 'episode_000000\n', '/etc', 'x' * 500]
)
def test_no_other_path_is_an_episode(library, name):
    for work in (library.thumbnail, library.replay, library.verdict, library.report):
        with pytest.raises(GrootRosError, match='There is no episode'):
            work(name)


def test_a_link_out_of_the_folder_is_not_shown(folder, tmp_path):
    (tmp_path / 'inside').mkdir()
    (tmp_path / 'inside' / 'episode_000000').symlink_to(folder / 'episode_000000')
    one = EpisodeLibrary(tmp_path / 'inside')
    with pytest.raises(GrootRosError, match='is a link out of'):
        one.replay('episode_000000')
    one.close()


def test_an_index_that_names_other_folders_shows_none_of_them(folder, tmp_path):
    entries = json.loads((folder / 'episodes.json').read_text())
    entries['episodes'][0]['name'] = f'../{folder.name}/episode_000000'
    (tmp_path / 'in').mkdir()
    (tmp_path / 'in' / 'episodes.json').write_text(json.dumps(entries))
    one = EpisodeLibrary(tmp_path / 'in')
    assert one.table() == []
    one.close()


def test_a_damaged_bag_is_told_in_one_sentence(folder, tmp_path):
    copy = tmp_path / 'episode_000000'
    copy.mkdir()
    for file in (folder / 'episode_000000').iterdir():
        content = file.read_bytes()
        (copy / file.name).write_bytes(content[: len(content) // 2] if file.suffix == '.mcap' else content)
    one = EpisodeLibrary(tmp_path)
    for work in (one.thumbnail, one.replay, lambda name: one.video(name, 0)):
        with pytest.raises(GrootRosError) as refusal:
            work('episode_000000')
        assert '\n' not in str(refusal.value)
    (copy / 'verdict.json').write_text('{')
    with pytest.raises(GrootRosError, match=r'verdict\.json'):
        one.verdict('episode_000000')
    one.close()


def test_the_last_verdict_is_read_once(library):
    reads = []

    def read(name):
        reads.append(name)
        return library.verdict(name)

    last = LastVerdict(read)
    assert last.of('', 0, '') == {}
    for _ in range(3):
        verdict = last.of('episode_000001', 1, 'fail')
    assert reads == ['episode_000001']
    assert verdict['verdict'] == 'fail' and verdict['reasons']
    assert 'There is no episode' in last.of('episode_000009', 2, 'pass')['reasons'][0]


# The server


def test_the_page_gets_table_thumbnail_video_and_curves(folder):
    async def scenario(page, cell, server):
        async with page.session.get(f'{page.url}/episodes') as response:
            names = [row['name'] for row in await response.json()]
        assert names == ['episode_000001', 'episode_000000']
        one = f'{page.url}/episodes/{names[0]}'
        async with page.session.get(f'{one}/thumbnail') as response:
            assert response.content_type == 'image/jpeg'
            assert (await response.read())[:2] == b'\xff\xd8'
            assert response.headers['Cross-Origin-Resource-Policy'] == 'same-origin'
        async with page.session.get(f'{one}/video/0', headers={'Range': 'bytes=4-7'}) as response:
            assert response.status == 206  # a browser seeks by ranges
            assert await response.read() == b'ftyp'
        async with page.session.get(f'{one}/replay') as response:
            assert (await response.json())['task'] == MARKUP
        async with page.session.get(f'{one}/report') as response:
            assert response.status == 400
            assert 'has no report' in await response.text()
        (folder / names[0] / 'report.html').write_text('<script>alert(1)</script>')
        async with page.session.get(f'{one}/report') as response:
            assert 'sandbox' in response.headers['Content-Security-Policy']
            assert 'script' not in response.headers['Content-Security-Policy']
        (folder / names[0] / 'report.html').unlink()

    assert with_server(scenario, folder=folder) == []


@pytest.mark.parametrize(
    'path',
    [
        '/episodes/..%2f..%2fetc/replay',
        '/episodes/episode_000000%2f..%2f..%2fx/thumbnail',
        '/episodes/episode_999999/video/0',
        '/episodes/episode_000000/video/999',
        '/episodes/episode_000000%00/replay',
    ],
)
def test_a_path_outside_the_folder_is_refused_in_one_sentence(folder, path):
    async def scenario(page, cell, server):
        async with page.session.get(URL(page.url + path, encoded=True)) as response:
            text = await response.text()
            assert response.status in (400, 404)
            assert '\n' not in text and len(text) < 300

    assert with_server(scenario, folder=folder) == []


def test_without_the_token_no_episode_is_shown(folder):
    async def scenario(page, cell, server):
        for path in ('episodes', 'episodes/episode_000000/thumbnail', 'episodes/episode_000000/video/0'):
            async with page.session.get(f'{page.url}/{path}') as response:
                assert response.status == 401

    assert with_server(scenario, '0.0.0.0', TOKEN, folder) == []


@pytest.mark.parametrize(
    'name', ['../episode_000000', 'episode_000000\n', 'episode_0000000', '', 'a' * 10_000]
)
def test_an_order_names_an_episode_or_is_refused(name):
    for order in ('relabel_episode', 'delete_episode'):
        with pytest.raises(OrderError, match='episode') as refusal:
            parse_order(json.dumps({'number': 1, 'order': order, 'episode': name}))
        assert len(str(refusal.value)) < 400


def test_only_known_outcomes_can_be_given():
    order = {'number': 1, 'order': 'relabel_episode', 'episode': 'episode_000000', 'outcome': 'perfect'}
    with pytest.raises(OrderError, match=re.escape("'success', 'failure' or 'excluded'")):
        parse_order(json.dumps(order))
    assert parse_order(json.dumps({**order, 'outcome': 'excluded', 'notes': MARKUP})).notes == MARKUP.strip()

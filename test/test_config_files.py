# SPDX-License-Identifier: Apache-2.0
"""YAML that no person wrote: every one is refused in a sentence, at once and without much memory."""

import os

import pytest

from groot_ros.config_files import parse_json, parse_yaml, read_yaml
from groot_ros.dataset.sources.time_ranges import load_ranges
from groot_ros.embodiment import load_embodiment
from groot_ros.errors import GrootRosError
from groot_ros.quality.verdict import CHECKS, load_thresholds
from groot_ros.recording.task_list import load_tasks
from groot_ros.teleop.mapping import load_map

BOMB = 'a: &a [x, x, x, x, x, x, x, x, x]\n' + ''.join(
    f'{name}: &{name} [{", ".join(["*" + before] * 9)}]\n'
    for before, name in zip('abcdefgh', 'bcdefghi', strict=True)
)
MERGES = 'a: &a {k: 1}\n' + ''.join(
    f'{name}: &{name} {{<<: [{", ".join(["*" + before] * 9)}]}}\n'
    for before, name in zip('abcdefgh', 'bcdefghi', strict=True)
)


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        (BOMB, 'aliases make more than'),
        (MERGES, 'aliases make more than'),
        (BOMB + 'base: *i', 'aliases make more than'),
        ('a: &a [*a]', 'an alias stands within what it names'),
        ('[' * 100_000, 'nested too deeply'),
        ('{a: ' * 100_000, 'nested too deeply'),
        ('fps: ' + '9' * 5000, 'a value cannot be read'),
        ('a: 2001-99-99', 'a value cannot be read'),
        ('a: \0', 'is not YAML'),
        ('a: "\\ud800"', 'a value cannot be read'),
        ('? [a]\n: b', 'is not YAML'),
        ('!!python/object/apply:os.system [true]', 'could not determine a constructor'),
    ],
)
def test_a_text_that_nobody_wrote_is_refused(text, reason):
    with pytest.raises(GrootRosError, match=f'^The file is not YAML.*{reason}|{reason}'):
        parse_yaml(text, 'The file')


@pytest.mark.parametrize(
    'text', ['"\\ud800"', '{"\\uDFFF": 1}', '[["a\\udC00"]]', '[' * 100_000, '9' * 5000, None, 3]
)
def test_json_that_cannot_be_written_again_is_refused(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_json_of_whole_characters_is_kept():
    assert parse_json('["\\ud83e\\udd16", "\\\\ud800 is text"]') == ['\U0001f916', '\\ud800 is text']


def test_anchors_that_people_write_are_kept():
    assert parse_yaml('a: &a [1, 2]\nb: *a\nc: {<<: {x: 1}, y: *a}', 'The file') == {
        'a': [1, 2], 'b': [1, 2], 'c': {'x': 1, 'y': [1, 2]},
    }  # fmt: skip


def test_what_is_no_text_file_is_named(tmp_path):
    os.mkfifo(tmp_path / 'pipe.yaml')
    (tmp_path / 'huge.yaml').write_bytes(b'# ' + b'x' * (3 << 20))
    (tmp_path / 'bytes.yaml').write_bytes(b'\xff\xfe')
    for name, reason in (('pipe', 'it is not a file'), ('huge', 'more than'), ('bytes', 'not a text file')):
        with pytest.raises(GrootRosError, match=reason):
            read_yaml(tmp_path / f'{name}.yaml', 'The map')
    with pytest.raises(GrootRosError, match='cannot be read'):
        read_yaml(tmp_path / 'a\0b.yaml', 'The map')


@pytest.mark.parametrize('base', ['[a]', '{a: b}', '3', 'null'])
def test_a_base_is_a_name(tmp_path, base):
    (tmp_path / 'x.yaml').write_text(f'base: {base}')
    with pytest.raises(GrootRosError, match='wrong at base'):
        load_embodiment(str(tmp_path / 'x.yaml'))


@pytest.mark.parametrize(
    ('load', 'text'),
    [
        (load_thresholds, f'{next(iter(CHECKS))}: {{{{warn: {{number}}}}}}'),
        (load_ranges, 'ranges: [{{bag: x, start_s: 0, end_s: {number}}}]'),
        (load_ranges, 'ranges: [{{bag: x, start_s: {number}, end_s: 3}}]'),
        (load_map, 'name: x\ndescription: x\nbuttons: {{}}\naxes: {{x: [{{axis: y, scale: {number}}}]}}'),
        (load_tasks, 'tasks: [{{text: x, count: {number}}}]'),
    ],
)
@pytest.mark.parametrize('number', ['.nan', '.inf', '-.inf', '1e400', '9999999999999999999999999'])
def test_numbers_that_measure_nothing_are_refused(tmp_path, load, text, number):
    if load is load_thresholds and number.startswith('9'):
        pytest.skip('a bound may be any finite number')
    (tmp_path / 'x.yaml').write_text(text.format(number=number))
    with pytest.raises(GrootRosError, match='is wrong at'):
        load(tmp_path / 'x.yaml' if load in (load_ranges, load_tasks) else str(tmp_path / 'x.yaml'))

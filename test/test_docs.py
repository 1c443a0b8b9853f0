# SPDX-License-Identifier: Apache-2.0
"""The docs say what the code does: links, names, quoted messages and generated pages."""

import ast
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from groot_ros.bringup.profiles import Options
from groot_ros.cli.main import parser
from groot_ros.embodiment import ActionField, CameraField, Embodiment, StateField, parse_embodiment
from groot_ros.inference.protocol import TOKEN_VARIABLE
from groot_ros.nodes import (
    camera_driver,
    converter,
    operator_page,
    policy_server,
    recorder,
    robotiq_driver,
    sim_cell,
    teleop,
    ur5e_driver,
)
from groot_ros.teleop.mapping import TeleopMap

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md', *sorted(DOCS.rglob('*.md'))]
GENERATED = [DOCS / 'reference' / f'{name}.md' for name in ('nodes', 'messages', 'cli')]
WRITTEN = [page for page in PAGES if page not in GENERATED]
NODES = (
    camera_driver,
    converter,
    operator_page,
    policy_server,
    recorder,
    robotiq_driver,
    teleop,
    ur5e_driver,
)
MAX_LINE = 200
OPTIONS_OF_OTHERS = {'--ipc', '--shm-size', '--ways', '--json'}
PRIVATE_WORDS = re.compile(
    r'\b(mend\w*|anew|beside|dead-man|picture\w*|stretch\w*|flavours?|lacking|wire|whoever)\b', re.I
)


def name_of(page):
    return str(page.relative_to(ROOT))


def text_outside_code(page):
    return re.sub(r'```.*?```', '', page.read_text(), flags=re.S)


def anchors(page):
    titles = re.findall(r'^#+ (.*)$', text_outside_code(page), re.M)
    return {re.sub(r'[^\w\- ]', '', title.lower()).strip().replace(' ', '-') for title in titles}


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_links_between_pages_resolve(page):
    for target in re.findall(r'\]\(([^)\s]+)\)', text_outside_code(page)):
        if target.startswith(('http://', 'https://')):
            continue
        path, _, anchor = target.partition('#')
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_file(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize('page', PAGES, ids=name_of)
def test_no_line_is_wider_than_a_screen(page):
    limit = 110 if page.name == 'README.md' else MAX_LINE
    assert [line for line in page.read_text().splitlines() if len(line) > limit] == []


@pytest.mark.parametrize('page', [page for page in WRITTEN if page.name != 'glossary.md'], ids=name_of)
def test_pages_use_the_words_of_the_glossary(page):
    assert PRIVATE_WORDS.findall(text_outside_code(page)) == []


def test_the_readme_fits_a_screen():
    assert len((ROOT / 'README.md').read_text().splitlines()) <= 90


def test_every_page_is_in_the_navigation():
    text = re.sub(r'!!python/name:\S+', '', (ROOT / 'mkdocs.yml').read_text())
    listed = set(re.findall(r'\S+\.md', str(yaml.safe_load(text)['nav']).replace("'", ' ').replace('}', ' ')))
    assert listed == {str(page.relative_to(DOCS)) for page in DOCS.rglob('*.md')}


def test_the_generated_reference_is_up_to_date():
    command = [sys.executable, str(ROOT / 'scripts' / 'make_reference.py'), '--check']
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def subcommands():
    return next(action.choices for action in parser()._actions if action.dest == 'command')


def known_options():
    parsers = [*subcommands().values(), converter.parser(), sim_cell.parser()]
    return {flag for command in parsers for action in command._actions for flag in action.option_strings}


@pytest.mark.parametrize('page', WRITTEN, ids=name_of)
def test_commands_and_their_options_exist(page):
    for command, arguments in re.findall(r'groot-ros ([a-z-]+)([^`#|\n]*)', page.read_text()):
        assert command in subcommands()
        known = {flag for action in subcommands()[command]._actions for flag in action.option_strings}
        assert set(re.findall(r'(?<!\S)--[a-z0-9-]+', arguments)) <= known, f'groot-ros {command}{arguments}'


@pytest.mark.parametrize('page', WRITTEN, ids=name_of)
def test_options_named_in_the_pages_exist(page):
    named = set(re.findall(r'`(--[a-z0-9-]+)', text_outside_code(page)))
    assert named - OPTIONS_OF_OTHERS <= known_options()


@pytest.mark.parametrize('page', WRITTEN, ids=name_of)
def test_launch_arguments_and_parameters_exist(page):
    known = {option.name for option in fields(Options)} | {key for node in NODES for key in node.PARAMETERS}
    assert set(re.findall(r'(?<![\w.])([a-z_0-9]+):=', page.read_text())) <= known


def keys_of(*models):
    return {field.alias or name for model in models for name, field in model.model_fields.items()}


def documented_names():
    """Every name with a unit, and every service of a node, that a page writes as code."""
    text = '\n'.join(text_outside_code(page) for page in WRITTEN if page.parent.name != 'reference')
    named = set(re.findall(r'parameters? `([a-z_0-9]+)`', text))
    return named | set(re.findall(r'`([a-z_0-9]+(?:_s|_m|_hz|_kg|_gb|_rad|_m_s))`', text))


def test_parameters_named_in_the_pages_exist():
    known = {key for node in NODES for key in node.PARAMETERS}
    known |= {
        name for model in (Embodiment, StateField, CameraField, TeleopMap) for name in model.model_fields
    }
    assert documented_names() <= known


def test_topics_and_services_named_in_the_pages_exist():
    reference = GENERATED[0].read_text()
    sections = re.split(r'^## ', reference, flags=re.M)[1:]
    known = set()
    for section in sections:
        node = section.split('\n', 1)[0]
        known |= {name.replace('~', node) for name in re.findall(r'^\| \w+ \| `([^`]+)`', section, re.M)}
    pattern = (
        r'`/?((?:ur5e_driver|robotiq_driver|recorder|policy_server|converter|teleop|policy|command)/[a-z_]+)`'
    )
    for page in WRITTEN:
        assert set(re.findall(pattern, page.read_text())) <= known, page


def test_the_embodiment_page_describes_every_key():
    page = (DOCS / 'reference' / 'embodiment.md').read_text()
    keys = keys_of(Embodiment, StateField, ActionField, CameraField)
    assert {key for key in keys if f'`{key}`' not in page} == set()


@pytest.mark.parametrize('page', [ROOT / 'README.md', DOCS / 'reference' / 'embodiment.md'], ids=name_of)
def test_the_embodiments_in_the_pages_are_valid(page):
    for text in re.findall(r'```yaml\n(name: .*?)```', page.read_text(), re.S):
        parse_embodiment(text.replace('[...]', '[a, b]'), name_of(page))


def test_maps_in_the_pages_are_valid():
    page = (DOCS / 'how-to' / 'add-teleop-device.md').read_text()
    for text in re.findall(r'```yaml\n# my_pad.yaml\n(.*?)```', page, re.S):
        TeleopMap(**yaml.safe_load(text))


def test_messages_quoted_in_troubleshooting_are_those_of_the_code():
    """Texts that the source breaks over lines are joined before they are searched."""
    source = ''.join(path.read_text() for path in (ROOT / 'groot_ros').rglob('*.py'))
    source = re.sub(r"""(['"])\s*\n\s*f?\1""", '', source)
    page = (DOCS / 'how-to' / 'troubleshooting.md').read_text()
    quoted = [
        text for cell in re.findall(r'^\| (`.*?) \|', page, re.M) for text in re.findall('`(.*?)`', cell)
    ]
    assert len(quoted) > 20
    assert [text for text in quoted if text not in source] == []


def test_files_named_in_the_pages_exist():
    for page in WRITTEN:
        for path in re.findall(r'`((?:config|test|scripts|docs|groot_ros)/[\w./-]+\w)`', page.read_text()):
            assert 'NAME' in path or (ROOT / path).exists(), f'{name_of(page)}: {path}'


def test_modules_named_in_the_explanation_exist():
    page = (DOCS / 'explanation' / 'architecture.md').read_text()
    for path in re.findall(r'`([a-z_0-9]+(?:/[a-z_0-9]+)+\.py)`', page):
        assert any((ROOT / folder / path).is_file() for folder in ('groot_ros', '.')), path


def imported_folders(folder):
    """The other folders of the package that a folder imports."""
    package = ROOT / 'groot_ros'
    modules = (
        node for path in (package / folder).rglob('*.py') for node in ast.walk(ast.parse(path.read_text()))
    )
    names = {node.module for node in modules if isinstance(node, ast.ImportFrom) and node.module}
    found = {name.split('.')[1] for name in names if name.startswith('groot_ros.')}
    return {name for name in found - {folder} if (package / name).is_dir()}


def test_folders_import_what_the_architecture_page_allows():
    page = (DOCS / 'explanation' / 'architecture.md').read_text()
    rows = re.findall(r'^\| (`.*?) \| .*? \| ?(.*?) ?\|$', page, re.M)
    allowed = {
        folder: set(re.findall(r'`(\w+)`', names))
        for cell, names in rows
        if names != 'all'
        for folder in re.findall(r'`(\w+)/`', cell)
    }
    assert len(allowed) > 10
    for folder, names in allowed.items():
        assert imported_folders(folder) <= names, folder


def test_the_token_variable_is_named_as_in_the_code():
    assert TOKEN_VARIABLE in (DOCS / 'explanation' / 'chunks.md').read_text()

# SPDX-License-Identifier: Apache-2.0
"""The config files for GR00T, run against stand-ins for its classes."""

import ast
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groot_ros.cli.main import main
from groot_ros.config_files import checked
from groot_ros.dataset.meta import column_to_array
from groot_ros.dataset.modality_config import GR00T_VERSIONS, modality_config
from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError

NAMES = [
    'ActionConfig',
    'ActionFormat',
    'ActionRepresentation',
    'ActionType',
    'ModalityConfig',
    'EmbodimentTag',
    'ComposedModalityTransform',
    'ConcatTransform',
    'StateActionToTensor',
    'StateActionTransform',
    'VideoColorJitter',
    'VideoCrop',
    'VideoResize',
    'VideoToNumpy',
    'VideoToTensor',
    'GR00TTransform',
]
MODULES = [
    'gr00t',
    'gr00t.configs',
    'gr00t.configs.data',
    'gr00t.configs.data.embodiment_configs',
    'gr00t.data',
    'gr00t.data.embodiment_tags',
    'gr00t.data.types',
    'gr00t.data.dataset',
    'gr00t.data.transform',
    'gr00t.data.transform.base',
    'gr00t.data.transform.concat',
    'gr00t.data.transform.state_action',
    'gr00t.data.transform.video',
    'gr00t.experiment',
    'gr00t.experiment.data_config',
    'gr00t.model',
    'gr00t.model.transforms',
]


class Recorded:
    """Keeps what it is called with; its attributes are their own names."""

    def __init__(self, name):
        self._name = name

    def __call__(self, **values):
        return SimpleNamespace(kind=self._name, **values)

    def __getattr__(self, name):
        return name


@pytest.fixture
def registered(monkeypatch):
    """Stand-ins for gr00t; what is registered is collected."""
    found = []
    for module in MODULES:
        stand_in = ModuleType(module)
        for name in NAMES:
            setattr(stand_in, name, Recorded(name))
        stand_in.BaseDataConfig = object
        stand_in.register_modality_config = lambda config, embodiment_tag: found.append(
            (config, embodiment_tag)
        )
        monkeypatch.setitem(sys.modules, module, stand_in)
    return found


@pytest.mark.parametrize(('gr00t_version', 'horizon'), [('n1.6', 16), ('n1.7', 40)])
def test_a_registered_config_names_every_part_of_the_row(embodiment, registered, gr00t_version, horizon):
    exec(compile(modality_config(embodiment, gr00t_version, horizon), 'config', 'exec'), {})
    ((config, tag),) = registered
    assert tag == 'NEW_EMBODIMENT'
    assert config['state'].modality_keys == [
        'joint_positions',
        'joint_velocities',
        'gripper_state',
        'tcp_pose',
    ]
    assert config['action'].modality_keys == [
        'delta_tcp_position',
        'delta_tcp_orientation',
        'gripper_command',
    ]
    assert config['action'].delta_indices == list(range(horizon))
    assert [(c.rep, c.type, c.format) for c in config['action'].action_configs] == [
        ('ABSOLUTE', 'NON_EEF', 'DEFAULT')
    ] * 3
    assert config['video'].modality_keys == ['zed_camera']
    assert config['language'].modality_keys == ['annotation.human.action.task_description']


def modes_of(config):
    transforms = config.transform().transforms
    normalised = (t.normalization_modes for t in transforms if t.kind == 'StateActionTransform')
    return {key: mode for modes in normalised for key, mode in modes.items()}


def test_the_class_of_n1_5_normalises_every_key(embodiment, registered):
    names: dict = {}
    exec(compile(modality_config(embodiment, 'n1.5'), 'config', 'exec'), names)
    config = names['Ur5eRobotiqZedDataConfig']()
    assert config.modality_config()['video'].modality_keys == ['video.zed_camera']
    modes = modes_of(config)
    assert set(modes) == {*config.state_keys, *config.action_keys}
    assert set(modes.values()) == {'min_max'}
    assert config.transform().transforms[-1].action_horizon == 16


@pytest.mark.parametrize(
    ('openings', 'mode'),
    [
        ([0, 1], 'binary'),
        ([0, 0.5, 1], 'min_max'),
        ([-1, 1], 'min_max'),
        ([0, 100], 'min_max'),
        ([1], 'min_max'),
    ],
)
def test_n1_5_learns_a_gripper_as_two_classes_only_where_it_is_0_or_1(
    dataset, embodiment, registered, openings, mode, tmp_path
):
    """As a class, SO-101's gripper of 0 to 100 was off by up to 28, and -1 came back as 0."""
    for file in (dataset / 'data').rglob('*.parquet'):
        table = pq.read_table(file)
        actions = column_to_array(table, 'action').copy()
        actions[:, 6] = np.resize(openings, len(actions))
        place = table.column_names.index('action')
        pq.write_table(table.set_column(place, 'action', pa.array(actions.tolist())), file)
    (dataset / 'meta/stats.json').write_text('{}')
    output = tmp_path / 'config.py'
    asked = ['--gr00t-version', 'n1.5', '--dataset', str(dataset), '--output', str(output)]
    assert main(['modality-config', *asked]) == 0
    names: dict = {}
    exec(compile(output.read_text(), 'config', 'exec'), names)
    modes = modes_of(names['Ur5eRobotiqZedDataConfig']())
    assert modes.pop('action.gripper_command') == mode
    assert set(modes.values()) == {'min_max'}


def test_what_a_release_cannot_take_is_named(embodiment):
    with pytest.raises(GrootRosError, match='a chunk of at most 16'):
        modality_config(embodiment, 'n1.6', 17)
    with pytest.raises(GrootRosError, match='use one of'):
        modality_config(embodiment, 'n1.9')


def test_the_command_writes_the_file_and_says_how_to_use_it(tmp_path, capsys):
    assert main(['modality-config', '--gr00t-version', 'n1.7', '--output', str(tmp_path / 'config.py')]) == 0
    assert '--modality-config-path' in (tmp_path / 'config.py').read_text()
    assert str(tmp_path / 'config.py') in capsys.readouterr().out


QUOTES = ['"""\n__import__("os").system("true")\n"""', "a'b", 'a\\', '{horizon}', '\U0001f916 café']


@pytest.mark.parametrize('gr00t_version', GR00T_VERSIONS)
@pytest.mark.parametrize('text', QUOTES)
def test_an_embodiment_is_never_code(embodiment, gr00t_version, text):
    values = embodiment.values()
    values['name'] = text
    with pytest.raises(GrootRosError, match='wrong at name'):
        checked(Embodiment, values, 'The embodiment')
    for changed in ({'robot_type': text.splitlines()[0]}, {'language_key': text.splitlines()[0]}):
        made = checked(Embodiment, {**embodiment.values(), **changed}, 'The embodiment')
        tree = ast.parse(modality_config(made, gr00t_version))
        constants = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        assert made.language in constants
        assert not any(isinstance(node, ast.Name) and node.id == '__import__' for node in ast.walk(tree))

# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning: commands of the trainers, checks before the first step, and runs of a stand-in trainer."""

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groot_ros.cli.main import main
from groot_ros.errors import GrootRosError
from groot_ros.training.dataset_checks import dataset_problems
from groot_ros.training.job import LOG_FILE, RECEIPT_FILE, FinetuneJob
from groot_ros.training.launcher import PROGRESS, WaitingTime
from groot_ros.training.machine_checks import machine_problems
from groot_ros.training.output_checks import output_problems
from groot_ros.training.preset import load_preset, preset_names
from groot_ros.training.probe import Gpu, Probe, probe
from groot_ros.training.progress import ProgressReader
from groot_ros.training.receipt import begin_receipt, read_receipt
from groot_ros.training.run import find_problems, make_command, train
from groot_ros.training.trainers import load_trainer


def good_probe(**changes):
    """A machine on which NVIDIA's trainer of N1.7 runs."""
    packages = {'gr00t': '1.7.0', 'transformers': '4.57.3', 'torch': '2.9.0', 'deepspeed': '0.17.6'}
    values = {
        'python': '3.12.3',
        'packages': packages | changes.pop('packages', {}),
        'programs': {'ffmpeg': '/usr/bin/ffmpeg', 'ffprobe': '/usr/bin/ffprobe'},
        'cuda_wheel': [12, 8],
        'cuda_driver': [12, 9],
        'gpus': [Gpu('NVIDIA H100', 79.6, 79.0)],
        'cached_models': ['nvidia/Cosmos-Reason2-2B'],
        'package_folders': {'gr00t': '/opt/gr00t'},
    }
    return Probe(**{**values, **changes})


def job_for(dataset, tmp_path, preset='h100_80gb', resume=False, **changes):
    return FinetuneJob(
        dataset, tmp_path / 'output', load_preset(preset, **changes), sys.executable, resume=resume
    )


def machine_checks(tmp_path, found, preset='h100_80gb', status=200, **changes):
    job = job_for(tmp_path, tmp_path, preset, **{'checkpoint_gb': 0.0, **changes})
    trainer = load_trainer(job.preset.trainer).TRAINER
    return {
        problem.check: problem.text for problem in machine_problems(job, trainer, found, lambda _: status)
    }


def test_a_machine_that_has_everything_has_no_problem(tmp_path):
    assert machine_checks(tmp_path, good_probe()) == {}


TWO_GPUS = [Gpu('NVIDIA H100', 79.6, 79.0)] * 2


@pytest.mark.parametrize(
    ('check', 'found', 'preset'),
    [
        ('trainer', {'packages': {'gr00t': ''}}, {}),
        ('python', {'python': '3.10.12'}, {}),
        ('versions', {'packages': {'transformers': '4.51.3'}}, {}),
        ('versions', {'packages': {'transformers': ''}}, {}),
        ('versions', {'packages': {'lmdb': '1', 'scipy': '1'}}, {'preset': 'rtx5090_32gb'}),
        ('versions', {'packages': {'transformers': '4.51.3', 'scipy': '1'}}, {'preset': 'rtx5090_32gb'}),
        ('versions', {'packages': {'lerobot': '0.5.1'}}, {'preset': 'lerobot_groot'}),
        ('module-cache', {'stale_modules': '/home/x/.cache/huggingface/modules'}, {}),
        ('extras', {}, {'optimizer': 'adamw_8bit'}),
        ('extras', {'packages': {'deepspeed': ''}, 'gpus': TWO_GPUS}, {'gpus': 2}),
        ('gpu', {'gpus': []}, {}),
        ('gpu', {'gpus': TWO_GPUS}, {'gpus': 4}),
        ('several-gpus', {'gpus': TWO_GPUS}, {}),
        ('gpu-memory', {'gpus': [Gpu('NVIDIA RTX 4090', 24.0, 23.9)]}, {}),
        ('gpu-in-use', {'gpus': [Gpu('NVIDIA H100', 79.6, 20.0)]}, {}),
        ('cuda', {'cuda_driver': [11, 8]}, {}),
        ('cuda', {'cuda_wheel': []}, {}),
        ('programs', {'programs': {}}, {}),
        ('disk', {}, {'checkpoint_gb': 1e9}),
        ('gated-model', {'cached_models': []}, {}),
        ('gated-model', {'cached_models': [], 'has_hub_token': True}, {'status': 403}),
        ('gated-model', {'cached_models': [], 'has_hub_token': True}, {'status': 0}),
        ('embodiment-tag', {}, {'embodiment_tag': 'gr1'}),
        ('ignored-option', {}, {'lora': {'rank': 8}}),
        ('ignored-option', {}, {'trainer_options': {'use_percentiles': True}}),
    ],
)  # fmt: skip
def test_what_a_machine_lacks_is_named_by_its_check(tmp_path, check, found, preset):
    problems = machine_checks(tmp_path, good_probe(**found), **preset)
    assert check in problems
    assert problems[check].endswith(('.', '"', 'ffmpeg', 'login', 'bitsandbytes', 'deepspeed'))


def test_a_card_of_24_gb_may_report_a_little_less(tmp_path):
    found = good_probe(
        gpus=[Gpu('NVIDIA RTX 4090', 23.6, 23.5)],
        python='3.10.12',
        packages={'transformers': '4.51.3', 'peft': '0.17.1'},
    )
    assert machine_checks(tmp_path, found, 'rtx4090_24gb') == {}


def edit(dataset, name, change):
    path = dataset / 'meta' / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_rows(dataset, change):
    """Replaces the action (list of lists) of each episode."""
    for path in sorted(dataset.glob('data/*/*.parquet')):
        table = pq.read_table(path)
        index = table.column_names.index('action')
        column = pa.array(change(table['action'].to_pylist()), table['action'].type)
        pq.write_table(table.set_column(index, 'action', column), path)


def dataset_checks(dataset, tmp_path, **changes):
    job = job_for(dataset, tmp_path, **changes)
    trainer = load_trainer(job.preset.trainer).TRAINER
    return {problem.check: problem.text for problem in dataset_problems(job, trainer)}


def vary(dataset):
    """The synthetic motion is uniform: gives its statistics the spread that a real one has."""

    def spread(stats):
        for column in ('action', 'observation.state'):
            stats[column]['q99'] = [value + 1 for value in stats[column]['q01']]

    edit(dataset, 'stats.json', spread)
    return dataset


def test_a_good_dataset_has_no_problem_but_its_own_statistics(dataset, tmp_path):
    assert dataset_checks(vary(dataset), tmp_path).keys() == {'validation'}  # which compares statistics


def test_dimensions_that_never_vary_are_named(dataset, tmp_path):
    problems = dataset_checks(dataset, tmp_path)
    assert 'delta_tcp_' in problems['constant-action']


def freeze_gripper(stats):
    stats['action']['q99'][6] = stats['action']['q01'][6]


@pytest.mark.parametrize(
    ('check', 'text', 'spoil'),
    [
        ('gripper', 'gripper_command never moves', lambda d: edit(d, 'stats.json', freeze_gripper)),
        ('idle', '100 % of the rows', lambda d: edit_rows(d, lambda rows: [[0.0] * 6 + [1.0] for _ in rows])),
        (
            'language',
            'must name one text',
            lambda d: edit(d, 'modality.json', lambda m: m['annotation'].update({'human.action.other': {}})),
        ),
        (
            'aspect',
            'zed_camera 1.33',
            lambda d: edit(
                d,
                'info.json',
                lambda info: info['features'].update(
                    {
                        'observation.images.wide': {
                            'dtype': 'video',
                            'shape': [360, 640, 3],
                            'names': ['height', 'width', 'channels'],
                        }
                    }
                ),
            ),
        ),
        (
            'dataset-version',
            'reads LeRobot v2 datasets',
            lambda d: edit(d, 'info.json', lambda info: info.update(codebase_version='v3.0')),
        ),
        ('validation', 'groot-ros validate', lambda d: (d / 'meta' / 'stats.json').exists()),
    ],
)
def test_what_is_wrong_with_a_dataset_is_named(dataset, tmp_path, check, text, spoil):
    spoil(vary(dataset))
    assert text in dataset_checks(dataset, tmp_path)[check]


def test_a_horizon_longer_than_the_shortest_episode_is_refused(dataset, tmp_path):
    assert 'fewer than the horizon of 40' in dataset_checks(dataset, tmp_path, horizon=40)['horizon']


def test_a_v2_dataset_is_refused_by_lerobot(dataset, tmp_path):
    assert 'reads LeRobot v3.0' in dataset_checks(dataset, tmp_path, preset='lerobot_act')['dataset-version']


@pytest.mark.parametrize('name', preset_names())
def test_every_preset_gives_a_command_and_says_where_its_numbers_come_from(dataset, tmp_path, name):
    job = job_for(dataset, tmp_path, name)
    command = make_command(job, good_probe())
    assert command.arguments[0] == sys.executable
    assert len(job.preset.source) > 20
    for file, text in command.files.items():
        compile(text, file, 'exec')


def values_of(arguments):
    """Options with a value, by their name."""
    pairs = itertools.pairwise(arguments)
    return {name: value for name, value in pairs if name.startswith('--') and not value.startswith('--')}


def test_the_command_of_n1_6_is_that_of_the_franka(dataset, tmp_path):
    """2 x 16 samples, 8-bit Adam, frozen LLM and vision, 5000 shards of 512 with a sampling rate of 0.3."""
    command = make_command(job_for(dataset, tmp_path, 'rtx5090_32gb'), good_probe())
    options = values_of(command.arguments)
    assert options['--global-batch-size'] == '2'
    assert options['--gradient-accumulation-steps'] == '16'
    assert options['--embodiment-tag'] == 'NEW_EMBODIMENT'
    assert options['--num-shards-per-epoch'] == '5000'
    assert options['--episode-sampling-rate'] == '0.3'
    assert {'--no-tune-llm', '--no-tune-visual', '--tune-projector', '--tune-diffusion-model'} <= set(
        command.arguments
    )
    settings = json.loads(command.arguments[2])
    assert settings['optimizer'] == 'adamw_bnb_8bit'
    assert settings['gradient_checkpointing'] is True
    assert command.environment['PYTORCH_CUDA_ALLOC_CONF'] == 'expandable_segments:True'


def test_n1_5_trains_with_lora_and_its_own_script(dataset, tmp_path):
    command = make_command(job_for(dataset, tmp_path, 'rtx4090_24gb'), good_probe())
    options = values_of(command.arguments)
    assert options['--file'] == '/opt/gr00t/scripts/gr00t_finetune.py'
    assert options['--lora-rank'] == '64'
    assert options['--data-config'] == 'ur5e_robotiq_zed_n1_5:Ur5eRobotiqZedDataConfig'
    assert 'ur5e_robotiq_zed_n1_5.py' in command.files
    assert '--no-tune-diffusion-model' in command.arguments


def test_several_gpus_are_one_process_each(dataset, tmp_path):
    command = make_command(job_for(dataset, tmp_path, 'h100x8'), good_probe())
    assert '--nproc_per_node=8' in command.arguments
    assert values_of(command.arguments)['--global-batch-size'] == '768'


def test_lerobot_goes_on_from_its_own_config(dataset, tmp_path):
    command = make_command(job_for(dataset, tmp_path, 'lerobot_act', resume=True), good_probe())
    assert '--resume=true' in command.arguments
    fresh = make_command(job_for(dataset, tmp_path, 'lerobot_act'), good_probe())
    assert '--policy.type=act' in fresh.arguments


def test_a_misspelt_key_of_a_preset_is_named(tmp_path):
    (tmp_path / 'mine.yaml').write_text('trainer: gr00t_n1.7\ndescription: x\nsource: x\nbatchsize: 3\n')
    with pytest.raises(GrootRosError, match=r'mine\.yaml is wrong at'):
        load_preset(str(tmp_path / 'mine.yaml'))
    with pytest.raises(GrootRosError, match='h100_80gb'):
        load_preset('h100')


def test_the_probe_of_this_python_is_true():
    found = probe(sys.executable)
    assert found.python == '.'.join(map(str, sys.version_info[:3]))
    assert found.packages['scipy']


def test_a_python_that_is_none_is_named(dataset, capsys):
    assert main(['finetune', str(dataset), '--python', '/bin/false', '--check']) == 1
    assert '/bin/false cannot be used' in capsys.readouterr().err


def test_waiting_for_data_is_measured_between_steps():
    now = [0.0]
    waiting = WaitingTime(lambda: now[0])
    for _ in range(4):
        now[0] += 0.1
        waiting.step_begins()
        now[0] += 0.3
        waiting.step_ends()
    assert waiting.share() == pytest.approx(0.25)


def test_lines_of_lerobot_are_progress():
    reader = ProgressReader(steps=100000, batch_size=8)
    line = 'INFO step:2K smpl:16K ep:40 epch:0.4 loss:0.125 grdn:3.1 lr:1.0e-05 updt_s:0.300 data_s:0.100'
    assert reader.read(line)
    progress = reader.progress
    assert (progress.step, progress.loss) == (2000, 0.125)
    assert progress.samples_per_s == pytest.approx(20)
    assert progress.waiting_share == pytest.approx(0.25)
    assert not reader.read('INFO Start offline training')
    assert reader.read('INFO step:2K smpl:16K loss:nan grdn:3.1')
    assert 'not a number' in progress.problem


def test_a_broken_line_of_progress_is_shown_like_any_other():
    reader = ProgressReader(10, 1)
    assert not reader.read(PROGRESS + '{"event": "step"')
    assert not reader.read(PROGRESS + '[]')
    assert reader.progress.step == 0


# Stand-ins for the libraries and the script of a trainer, run by the real launcher in a process of its own.
TORCH = """
class cuda:
    @staticmethod
    def is_available():
        return False
uint8 = None
"""
TRANSFORMERS = """
import json, os
from pathlib import Path
class TrainerCallback: pass
class training_args:
    OptimizerNames = str
class Arguments:
    train_batch_size = 2
    gradient_accumulation_steps = 1
    world_size = 1
    optim = 'adamw_torch'
class Control:
    should_save = False
    should_training_stop = False
class State:
    global_step = 0
    max_steps = 0
class Parameter:
    requires_grad = True
    def numel(self): return 10
class Model:
    def named_parameters(self): return [('head.weight', Parameter())]
class Trainer:
    def __init__(self, model=None, args=None):
        self.args, self.callbacks = args, []
    def add_callback(self, callback):
        self.callbacks.append(callback)
    def call(self, event, **values):
        for callback in self.callbacks:
            if hasattr(callback, event):
                getattr(callback, event)(self.args, self.state, self.control, **values)
    def train(self, resume_from_checkpoint=None):
        self.state, self.control = State(), Control()
        self.state.max_steps = self.args.max_steps
        folder = Path(self.args.output)
        if resume_from_checkpoint:
            self.state.global_step = json.loads((folder / 'checkpoint').read_text())
        self.call('on_train_begin', model=Model())
        print('optimizer', self.args.optim)
        while self.state.global_step < self.state.max_steps and not self.control.should_training_stop:
            self.call('on_step_begin')
            self.state.global_step += 1
            self.call('on_step_end')
            self.call('on_log', logs={'loss': self.args.loss(self.state.global_step)})
            if self.control.should_save or self.state.global_step == self.state.max_steps:
                (folder / 'checkpoint').write_text(json.dumps(self.state.global_step))
                self.call('on_save')
        self.call('on_train_end', model=Model())
"""
SCRIPT = """
import argparse, time
from transformers import Arguments, Trainer
parser = argparse.ArgumentParser()
for name in ('output-dir', 'max-steps', 'save-steps'):
    parser.add_argument('--' + name)
options, _ = parser.parse_known_args()
arguments = Arguments()
arguments.output, arguments.max_steps = options.output_dir, int(options.max_steps)
def loss(step):
{loss}
arguments.loss = loss
Trainer(model=None, args=arguments).train()
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Makes a stand-in of NVIDIA's package, whose loss is the given lines of Python."""
    folder = tmp_path / 'libraries'
    (folder / 'gr00t' / 'experiment').mkdir(parents=True)
    (folder / 'torch.py').write_text(TORCH)
    (folder / 'transformers.py').write_text(TRANSFORMERS)
    for package in ('gr00t', 'gr00t/experiment'):
        (folder / package / '__init__.py').write_text('')
    monkeypatch.setenv('PYTHONPATH', str(folder))

    def make(*lines):
        text = '\n'.join(f'    {line}' for line in lines)
        (folder / 'gr00t' / 'experiment' / 'launch_finetune.py').write_text(SCRIPT.replace('{loss}', text))

    return make


def test_a_run_leaves_a_receipt(dataset, tmp_path, stand_in):
    stand_in('return 1.0 / step')
    job = job_for(dataset, tmp_path, steps=20, optimizer='adamw_8bit')
    receipt = train(job, good_probe(), print)
    written = json.loads((job.output / RECEIPT_FILE).read_text())
    assert written['sessions'][-1]['outcome'] == 'finished'
    assert written['sessions'][-1]['step'] == 20
    assert written['sessions'][-1]['loss'] == pytest.approx(0.05)
    assert written['parameters'] == {'head': {'trained': 10, 'frozen': 0}}
    assert written['versions']['transformers'] == '4.57.3'
    assert not receipt.frozen_changed
    assert 'optimizer adamw_bnb_8bit' in (job.output / LOG_FILE).read_text()
    compile((job.output / 'modality_config.py').read_text(), 'modality_config.py', 'exec')


def test_a_loss_that_is_not_a_number_ends_the_run(dataset, tmp_path, stand_in):
    stand_in('return float("nan") if step > 5 else 1.0')
    job = job_for(dataset, tmp_path, steps=20)
    with pytest.raises(GrootRosError, match='the loss is not a number at step 6'):
        train(job, good_probe(), print)
    assert read_receipt(job.output)['sessions'][-1]['step'] == 6


def test_a_trainer_that_fails_shows_its_last_lines(dataset, tmp_path, stand_in):
    stand_in('if step > 5:', '    raise RuntimeError("CUDA out of memory")', 'return 1.0')
    job = job_for(dataset, tmp_path, steps=20)
    with pytest.raises(GrootRosError, match='CUDA out of memory'):
        train(job, good_probe(), print)


def test_an_interrupt_saves_a_checkpoint_and_the_run_goes_on_from_it(dataset, tmp_path, stand_in):
    gate = tmp_path / 'gate'
    os.mkfifo(gate)
    # The first step waits until the test has opened the pipe, right before the interrupt.
    stand_in('if step == 1:', f'    open({str(gate)!r}).read()', 'time.sleep(0.01)', 'return 1.0 / step')
    job = job_for(dataset, tmp_path, steps=100000)

    def interrupt():
        gate.open('w').close()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        train(job, good_probe(), print)
    receipt = read_receipt(job.output)
    assert receipt['sessions'][-1]['outcome'] == 'interrupted'
    saved = json.loads((job.output / 'checkpoint').read_text())
    assert 1 <= saved == receipt['sessions'][-1]['step']
    stand_in('return 1.0 / step')
    again = job_for(dataset, tmp_path, steps=saved + 10, resume=True)
    assert list(output_problems(again)) == []
    receipt = train(again, good_probe(), print)
    assert [session['outcome'] for session in receipt.sessions] == ['interrupted', 'finished']
    assert receipt.sessions[-1]['step'] == saved + 10


def noted_run(dataset, tmp_path):
    job = job_for(dataset, tmp_path)
    job.output.mkdir()
    begin_receipt(job, good_probe(), []).write(job.output)
    return job


def test_a_run_is_not_overwritten_and_not_continued_with_something_else(dataset, tmp_path):
    (nothing,) = output_problems(job_for(dataset, tmp_path, resume=True))
    assert 'holds no run' in nothing.text
    noted_run(dataset, tmp_path)
    (problem,) = output_problems(job_for(dataset, tmp_path))
    assert 'give --resume' in problem.text
    (problem,) = output_problems(job_for(dataset, tmp_path, resume=True, learning_rate=1e-3))
    assert 'learning_rate' in problem.text
    edit(dataset, 'info.json', lambda info: info.update(note='changed'))
    (problem,) = output_problems(job_for(dataset, tmp_path, resume=True))
    assert 'the dataset' in problem.text


def test_two_runs_do_not_share_a_folder(dataset, tmp_path, stand_in):
    import fcntl

    stand_in('return 1.0')
    job = job_for(dataset, tmp_path, steps=5)
    job.output.mkdir()
    with (job.output / '.training.lock').open('w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(GrootRosError, match='Another run writes into'):
            train(job, good_probe(), print)


def test_every_problem_is_shown_at_once_and_can_be_allowed(dataset, tmp_path, capsys):
    output = str(tmp_path / 'x')
    assert main(['finetune', str(dataset), '--output', output, '--check']) == 1
    shown = capsys.readouterr().err
    assert '(trainer)' in shown
    assert '(gpu)' in shown
    assert '(constant-action)' in shown
    assert 'nothing was started' in shown
    assert not Path(output).exists()
    job = job_for(dataset, tmp_path)
    names = {problem.check for problem in find_problems(job, probe(sys.executable))}
    allowed = [argument for name in names for argument in ('--allow', name)]
    assert main(['finetune', str(dataset), '--output', output, '--check', *allowed]) == 0


def test_a_dry_run_prints_the_command_and_writes_nothing(dataset, tmp_path, capsys):
    output = tmp_path / 'x'
    assert main(['finetune', str(dataset), '--output', str(output), '--dry-run']) == 0
    shown = capsys.readouterr().out
    assert 'gr00t.experiment.launch_finetune' in shown
    assert 'modality_config.py' in shown
    assert not output.exists()


def test_the_presets_are_listed(capsys):
    assert main(['finetune', '--list']) == 0
    assert 'rtx5090_32gb' in capsys.readouterr().out


def test_the_launcher_and_the_probe_need_only_the_standard_library():
    """They run in the trainer's Python, which has no groot_ros."""
    for file in ('launcher.py', 'probe.py'):
        path = Path(sys.modules[ProgressReader.__module__].__file__).with_name(file)
        code = f'import runpy; runpy.run_path({str(path)!r})'
        subprocess.run([sys.executable, '-I', '-S', '-c', code], check=True, cwd='/')

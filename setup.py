# SPDX-License-Identifier: Apache-2.0
"""pip install on a workstation without ROS: the converter, the validator and all else that imports no ROS.

On a robot, use `make setup` and colcon.
"""

from setuptools import find_packages, setup

setup(
    name='groot_ros',
    version='0.1.0',
    description='Demonstrations of a UR5e, Robotiq and ZED as datasets for NVIDIA GR00T',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=[
        *find_packages(
            include=['groot_ros', 'groot_ros.*'],
            exclude=['groot_ros.nodes', 'groot_ros.ros', 'groot_ros.sim.nodes'],
        ),
        'groot_ros.share.config',
        'groot_ros.share.msg',
    ],
    # Inside the package they are found wherever pip installs it: --user, --target, --prefix or a .venv.
    package_dir={'groot_ros.share.config': 'config', 'groot_ros.share.msg': 'msg'},
    package_data={
        'groot_ros': ['**/*.j2', 'operator_page/static/*'],
        'groot_ros.share.config': ['**/*.yaml', '*.xml', '*.json'],
        'groot_ros.share.msg': ['*.msg'],
    },
    install_requires=[
        'av>=14',
        'mcap>=1.2',
        'numpy>=1.26',
        'packaging>=22',
        'opencv-python-headless>=4.8',
        'pyarrow>=15',
        'pydantic>=2.6',
        'pyyaml>=6',
        'rosbags==0.11.9',
        'scipy>=1.11',
        'tqdm>=4.66',
    ],
    extras_require={
        'robot': ['ur_rtde==1.6.5', 'pyrobotiqgripper==3.3.14', 'pyserial>=3.5'],
        'teleop': ['pyspacemouse>=2.1', 'teleop>=0.1.5'],
        'sim': ['mujoco>=3.2'],
        'hdf5': ['h5py>=3.10'],
        'hub': ['huggingface_hub>=0.23'],
        'policy': ['msgpack>=1.0', 'pyzmq>=25'],
        'ray': ['ray[default]>=2.9'],
        'storage': ['fsspec>=2024.2'],
        'page': ['aiohttp>=3.10'],
        'report': ['jinja2>=3.1', 'matplotlib>=3.8', 'pillow>=10'],
        'test': ['hypothesis>=6.100', 'pytest>=8', 'pytest-xdist>=3.5', 'ruff'],
    },
    entry_points={'console_scripts': ['groot-ros = groot_ros.cli.main:main']},
)

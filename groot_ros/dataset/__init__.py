# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets in the form that GR00T reads: conversion, statistics, validation. Imports no ROS."""

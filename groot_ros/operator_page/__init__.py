# SPDX-License-Identifier: Apache-2.0
"""The operator's page without ROS: what it shows, who may command, its HTTP server and its static files."""

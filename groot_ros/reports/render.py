# SPDX-License-Identifier: Apache-2.0
"""Renders the HTML reports of an episode, a dataset and the demo from templates that extend base.html.j2."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, select_autoescape

_PACKAGE = Path(__file__).resolve().parents[1]


def render_report(template: str, **values: Any) -> str:
    """The HTML of a template, named by its path in the package, with escaped values."""
    environment = Environment(loader=FileSystemLoader(_PACKAGE), autoescape=select_autoescape(['html', 'j2']))
    return environment.get_template(template).render(**values)

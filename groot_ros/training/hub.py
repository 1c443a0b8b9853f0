# SPDX-License-Identifier: Apache-2.0
"""The user's token of the Hugging Face hub."""

import os
from pathlib import Path


def hub_token() -> str:
    """The token of HF_TOKEN, or of `hf auth login`; empty if there is none."""
    if token := os.environ.get('HF_TOKEN', ''):
        return token
    home = Path(os.environ.get('HF_HOME', '~/.cache/huggingface')).expanduser()
    file = home / 'token'
    return file.read_text().strip() if file.is_file() else ''

# SPDX-License-Identifier: Apache-2.0
"""What the HTML reports of episodes, datasets and the demo share: base template, rendering and plots."""

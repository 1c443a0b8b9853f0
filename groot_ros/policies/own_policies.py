# SPDX-License-Identifier: Apache-2.0
"""Policies of other packages, found by their entry points of the group `groot_ros.policies`.

An entry point is called with the embodiment, and returns a Policy.
"""

from importlib.metadata import EntryPoint, entry_points

from groot_ros.embodiment import Embodiment
from groot_ros.errors import GrootRosError, PolicyError
from groot_ros.policies.policy import Policy, PolicySpec

GROUP = 'groot_ros.policies'


def own_policies() -> dict[str, EntryPoint]:
    """The entry points of all installed packages, by their names."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def load_own_policy(entry: EntryPoint, embodiment: Embodiment) -> Policy:
    """Makes the policy of an entry point.

    Raises PolicyError if it cannot be imported or made, or is no Policy with a spec.
    """
    where = f'The policy {entry.name} ({entry.value})'
    try:
        policy = entry.load()(embodiment)
    except GrootRosError:
        raise
    except Exception as error:  # code of others may raise anything
        raise PolicyError(f'{where} cannot be made: {type(error).__name__}: {error}.') from error
    if not isinstance(policy, Policy) or not isinstance(getattr(policy, 'spec', None), PolicySpec):
        raise PolicyError(f'{where} gives {type(policy).__name__}: a Policy with a `spec` is needed.')
    return policy

# SPDX-License-Identifier: Apache-2.0
"""Who may open the page: the token, its sessions, and which sites a browser may speak for."""

import hmac
import ipaddress
import secrets
from urllib.parse import urlsplit

from groot_ros.errors import GrootRosError

# The token of the page. It is not a parameter, because every user of a machine can read parameters.
PAGE_TOKEN_VARIABLE = 'GROOT_ROS_PAGE_TOKEN'
SESSION_COOKIE = 'groot_ros_page'
_MIN_TOKEN_LENGTH = 12
_MAX_SESSIONS = 64
_LOOPBACK_NAMES = {'localhost', 'ip6-localhost'}


def is_loopback(host: str) -> bool:
    """Whether a host name or address is that of this machine only."""
    if host in _LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Access:
    """The rules of one page at an address `host`; an empty `token` asks for none.

    Raises GrootRosError for an address that other machines reach without a token that is hard to guess.
    """

    def __init__(self, host: str, token: str) -> None:
        if not token and not is_loopback(host):
            raise GrootRosError(
                f'Everybody who reaches {host} could command the arm: set the environment variable '
                f'{PAGE_TOKEN_VARIABLE}, or leave page_host at 127.0.0.1 and use `ssh -L`.'
            )
        if token and len(token) < _MIN_TOKEN_LENGTH:
            raise GrootRosError(
                f'The token in {PAGE_TOKEN_VARIABLE} has {len(token)} characters: give at least '
                f'{_MIN_TOKEN_LENGTH}, as `openssl rand -hex 16` makes them.'
            )
        self._token = token.encode()
        self._sessions: dict[str, None] = {}

    @property
    def needs_token(self) -> bool:
        """Whether a browser must give the token before it sees anything."""
        return bool(self._token)

    def log_in(self, token: str) -> str:
        """The name of a new session. Raises GrootRosError for a wrong token."""
        if not hmac.compare_digest(token.encode('utf-8', 'replace'), self._token):
            raise GrootRosError(
                f'The token is wrong: use the one in {PAGE_TOKEN_VARIABLE} where the page was started.'
            )
        while len(self._sessions) >= _MAX_SESSIONS:
            self._sessions.pop(next(iter(self._sessions)))
        session = secrets.token_urlsafe(24)
        self._sessions[session] = None
        return session

    def knows(self, session: str) -> bool:
        """Whether a session may see the page; without a token everybody may."""
        return not self._token or session in self._sessions

    def host_refusal(self, host_header: str) -> str:
        """Why a request for a host is refused; empty if it is not.

        Without a token only names of this machine are answered: another site could otherwise have its own
        name point here, and would then be of the same origin.
        """
        name = urlsplit(f'//{host_header}').hostname or ''
        if self._token or is_loopback(name):
            return ''
        return f'The page answers for this machine only, not for {name[:100]!r}: open it at 127.0.0.1.'

    def origin_refusal(self, origin: str | None, host_header: str) -> str:
        """Why a request that may command is refused by its Origin; empty if it is not."""
        if origin and urlsplit(origin).netloc == host_header:
            return ''
        return f'A page of {(origin or "an unknown site")[:100]!r} may not command this cell.'

"""Addresses of databases: what they must look like, and how they are shown. Imports no Optuna: plans need it.

A password is never printed, also not of an address that is wrong: rather too much is hidden than too little.
"""

import argparse
import re
from typing import NoReturn

from focal_lab.errors import UserError

# What stands between a user's name and the last @, which passwords may hold, too; user names as well
# (user@server), and people forget a colon or a slash of `://`.
_BEFORE_HOST = re.compile(r"(\w(?:://?|//)[^:/\s\[]*):.*@", re.DOTALL)
# No @ at all: what should be a port and is none.
_NO_PORT = re.compile(r"(\w(?:://?|//)[^:/\s\[]*):(?!\*\*\*@)(?!\d+(?:[/?,\s'\"]|$))[^\s'\"]+")
_NAMED = re.compile(r"(pass\w*\s*=)(?:\s*'[^']*'|[^&'\"]+)", re.IGNORECASE)


def check_url(url: str) -> str:
    """The address with the driver that we install.

    Raises:
        UserError: not the address of a PostgreSQL database.
    """
    scheme, separator, rest = url.partition("://")
    kind = scheme.partition("+")[0]
    if kind == "sqlite":
        raise UserError(
            "SQLite hands out runs twice to parallel workers; leave --storage out on one machine "
            "(a journal file in --out is used), and use postgresql://USER@HOST/DATABASE for several",
            key="--storage",
        )
    if kind not in ("postgresql", "postgres") or not separator or not rest.strip("/"):
        raise UserError(
            f"{without_password(url)!r} is not the address of a PostgreSQL database "
            "(postgresql://USER@HOST/DATABASE)",
            key="--storage",
        )
    return f"postgresql+psycopg://{rest}"


def without_password(text: str) -> str:
    """A text with the passwords of addresses in it replaced by `***`."""
    text = _BEFORE_HOST.sub(r"\1:***@", text)
    text = _NO_PORT.sub(r"\1:***", text)
    return _NAMED.sub(r"\1***", text)


class DiscreetParser(argparse.ArgumentParser):
    """Repeats no password of an argument that it does not know: `focal-lab plan` has no --storage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit with status 2."""
        super().error(without_password(message))

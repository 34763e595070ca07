"""Addresses of databases: what they must look like, and how they are shown. Imports no Optuna: plans need it.

A password is never printed, also not of an address that is wrong: rather too much is hidden than too little.
"""

from focal_lab.command_line import without_password
from focal_lab.errors import UserError


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

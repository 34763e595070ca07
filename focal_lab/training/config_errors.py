"""Turns what jsonargparse and Lightning raise for a wrong configuration into one line."""

import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jsonargparse import ArgumentError
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException

from focal_lab.errors import UserError, did_you_mean

_NOT_ACCEPTED = re.compile(
    r"(?:Group '(?P<group>\w+)' does not accept o|O)ption '(?P<name>[\w.]+)'(?: is not accepted|$)"
)
# lines about how jsonargparse searched, not about what is wrong
_STRUCTURE = re.compile(
    "Parser key|Does not validate|Subtypes:|Errors:|Given value|Problem with given"
    "|Expected a <class 'NoneType'>"
)
_GIVEN_IMAGES = (
    ": its images are given, and no seed changes them (drop data_seed; order_seed changes their order and "
    "augmentation)"
)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Raise a UserError for a wrong configuration; one that a constructor raised is unwrapped."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, UserError):
                raise cause from error
            cause = cause.__cause__ or cause.__context__
        if isinstance(error, ArgumentError):
            raise UserError(shorten(str(error))) from error
        failed = re.search(r"Problem with given class_path '(?:\w+\.)*(\w+)':\s+(.+)", str(error))
        if failed:
            raise UserError(f"{failed[1]}: {failed[2]}") from error
        # a logger's package is not installed, or EarlyStopping monitors a metric that is never logged
        if isinstance(
            error, MisconfigurationException | ModuleNotFoundError
        ) or "conditioned on metric" in str(error):
            raise UserError(" ".join(str(error).split())) from error
        raise


def shorten(message: str, options: Iterable[str] = ()) -> str:
    """Key, reason and value from a jsonargparse message, which has a line for every type it tried.

    Args:
        message: of an ArgumentError.
        options: of the command line; the one nearest to an unknown option is suggested.
    """
    key = ".".join(re.findall(r'Parser key "([^"]+)"', message))
    lines = [re.sub(r'^Parser key "[^"]+": ', "", line.strip(" -")) for line in message.splitlines()]
    lines = [line for line in lines if line]
    reasons = [line for line in lines if not _STRUCTURE.match(line)] or lines[-1:]
    unknown = [line for line in reasons if _NOT_ACCEPTED.match(line)]
    reason = "; ".join(dict.fromkeys(unknown[:1] or reasons))
    reason = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", reason)
    owner = re.findall(r"given class_path '([\w.]+)'", message)
    if owner and reason.endswith("is not accepted"):
        reason += f" by {owner[-1].rpartition('.')[2]}"
    # the first value given is that of the innermost key
    value = re.search(r"Given value: (.*)", message)
    if value and "value" not in reason and owner == []:
        reason += ", not " + re.sub(r"NestedArg\(key='\w+', val=(.*)\)", r"\1", value.group(1))
    reason += _suggestion(reason, owner[-1] if owner else "", options)
    return f"{key}: {reason}" if key else reason


def refuse_nulls(part: str, chosen: Any, options: Mapping[str, Any]) -> None:
    """jsonargparse accepts null for every type: `lr: null` would be a traceback at the first comparison.

    Raises:
        UserError: an option is null and its annotation does not allow None.
    """
    signatures = [inspect.signature(init) for init in _initialisers(chosen)]
    for name, value in options.items():
        found = [signature.parameters[name] for signature in signatures if name in signature.parameters]
        if value is not None or not found or found[0].default is None:
            continue
        kind = inspect.formatannotation(found[0].annotation)
        if found[0].annotation is not found[0].empty and not re.search("None|Optional|^(typing.)?Any$", kind):
            default = "" if found[0].default is found[0].empty else f" (the default is {found[0].default!r})"
            raise UserError(f"null is not of type {kind}{default}", key=f"{part}.{name}")


def _suggestion(reason: str, owner: str, options: Iterable[str]) -> str:
    """The nearest known name to the unknown one in a message about the class at the path `owner`."""
    argument = re.search(r"unrecognized arguments: (--[\w.-]+)", reason)
    option = _NOT_ACCEPTED.match(reason)
    module, _, name = owner.rpartition(".")
    if option and option["name"] == "data_seed" and module.partition(".")[0] == "focal_lab":
        return _GIVEN_IMAGES
    chosen = Trainer if option and option["group"] == "trainer" else getattr(sys.modules.get(module), name, 0)
    if isinstance(chosen, type):
        options = {
            f"--{name}" for init in _initialisers(chosen) for name in inspect.signature(init).parameters
        }
    if argument:
        return did_you_mean(argument[1], options)
    return did_you_mean(option["name"], {name.lstrip("-") for name in options}) if option else ""


def _initialisers(chosen: Any) -> list[Any]:
    """Every `__init__` of a class and its bases, the class's own first."""
    return [vars(base)["__init__"] for base in getattr(chosen, "__mro__", ()) if "__init__" in vars(base)]

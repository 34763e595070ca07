"""The command `focal-lab`: maps subcommands to functions, which are imported when they are called."""

import argparse
import datetime
import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pkgutil import resolve_name

from focal_lab._version import __version__
from focal_lab.command_line import CommandParser, command, rename_options, replace_unknown_characters
from focal_lab.errors import UserError, known_names

FAULT = 1
USER_ERROR = 2
INTERRUPTED = 130
DEBUG_VARIABLE = "FOCAL_LAB_DEBUG"
# a wrong path in an option or a file
_PATH_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns the exit status.

    2 for a user's mistake, reported in one line; 1 for an internal error, reported in one line with a log
    file, or as a traceback if FOCAL_LAB_DEBUG is set; 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _prepare_streams()
    _put_working_directory_last()
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(str(error), USER_ERROR)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()  # the reader has exited, as in `| head`
        return 0
    except Exception as error:
        return _unexpected(error)


def _fail(message: str, status: int) -> int:
    print(f"focal-lab: {' '.join(message.split())}", file=sys.stderr)
    return status


def _unexpected(error: Exception) -> int:
    """Report an unexpected error in one line."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
        return FAULT
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        if error.filename is None:
            _discard_output()  # standard output itself may be full
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}; free disk space and run the command again", FAULT)
    if isinstance(error, _PATH_ERRORS) and error.filename is not None:
        return _fail(f"{error.filename}: {error.strerror}", USER_ERROR)
    message = " ".join(str(error).split())
    summary = f"{type(error).__name__}: {message[:300]}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return _fail(f"{summary}{where}; {_log(error)}", FAULT)


def _log(error: Exception) -> str:
    """Write the traceback to a file; returns a hint where it is."""
    name = f"focal-lab-{datetime.datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    path = os.path.join(tempfile.gettempdir(), name)
    try:
        with open(path, "x", encoding="utf-8", errors="backslashreplace") as stream:
            traceback.print_exception(error, file=stream)
    except OSError:
        return f"{DEBUG_VARIABLE}=1 prints the traceback"
    return f"the traceback is in {path} ({DEBUG_VARIABLE}=1 prints it)"


def _prepare_streams() -> None:
    """Reopen standard streams that the caller closed, and make them accept every character.

    Otherwise the next opened file would get the number of a closed stream, and its output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    replace_unknown_characters()


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _put_working_directory_last() -> None:
    """Let user modules in the working directory be imported without shadowing others, such as timm."""
    with suppress(FileNotFoundError):  # it was removed
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0].startswith("-"):
        _parser().parse_args(arguments or ["--help"])  # --help and --version exit
    name = arguments[0] if arguments else ""
    if name not in SUBCOMMANDS:
        raise UserError(f"{name!r} is not a subcommand{known_names(name, SUBCOMMANDS)}")
    run, _ = SUBCOMMANDS[name]
    return run(arguments[1:])


def plan(argv: list[str]) -> int:
    """Show the runs that a sweep would train, and their cost."""
    from focal_lab.report.power_plan import metric_powers, power_text
    from focal_lab.report.published.layouts import known_papers
    from focal_lab.sweep.commands.plan_command import plan_command

    return plan_command(argv, known_papers(), metric_powers, power_text)


def sweep(argv: list[str]) -> int:
    """Train the missing runs of a sweep, then print the table."""
    from focal_lab.report.command import print_table
    from focal_lab.report.published.layouts import known_papers
    from focal_lab.report.table.progress import comparisons
    from focal_lab.sweep.commands.sweep_command import sweep_command

    status, trained, out = sweep_command(argv, known_papers(), comparisons)
    print_table(trained, out, trained_by=command("sweep", *argv))
    return status


def fit(argv: list[str]) -> int:
    """Train one experiment; with --dry-run, only report the time and memory it would need."""
    argv = rename_options(argv, {"--dry_run": "--dry-run"})
    if "--dry-run" not in argv or {"-h", "--help"} & set(argv):
        return _trainer("fit")(argv)
    from focal_lab.tools.dry_run.command import main as dry_run_main

    return dry_run_main([argument for argument in argv if argument != "--dry-run"])


def predict(argv: list[str]) -> int:
    """Run a trained network on images: CHECKPOINT IMAGES..."""
    option = argv[0].partition("=")[0] if argv else ""
    if option in ("-c", "--config", "--ckpt_path"):
        raise UserError("was removed; use focal-lab predict CHECKPOINT IMAGES...", key=option)
    from focal_lab.tools.predict.command import main as predict_main

    return predict_main(argv or ["--help"])


def _trainer(subcommand: str) -> Callable[[list[str]], int]:
    """A LightningCLI subcommand."""

    def run(argv: list[str]) -> int:
        from focal_lab.training.help import answer_help

        argv = answer_help(subcommand, argv)
        from focal_lab.training.lightning_cli import main as training_main

        return training_main(subcommand, argv)

    return run


def _imported(module: str) -> Callable[[list[str]], int]:
    """`main` of a module below focal_lab that is imported when it is called."""

    def run(argv: list[str]) -> int:
        status: int = resolve_name(f"focal_lab.{module}:main")(argv)
        return status

    return run


SUBCOMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "fit": (fit, "train one experiment: --config FILE; with --dry-run report the time and memory needed"),
    "find-lr": (_imported("tools.find_lr"), "raise the learning rate step by step and suggest one"),
    "validate": (_trainer("validate"), "evaluate a checkpoint on the validation split"),
    "test": (_trainer("test"), "evaluate a checkpoint on the test split"),
    "predict": (predict, "run a trained network on images: CHECKPOINT IMAGES..."),
    "plan": (plan, "show what a sweep would train, and what it can reuse"),
    "sweep": (sweep, "train the missing runs of a sweep and print its table"),
    "worker": (_imported("sweep.commands.worker_command"), "join a sweep, here or elsewhere"),
    "runs": (_imported("sweep.commands.runs_command"), "list the runs of a folder; rm, retry and gc"),
    "freeze": (_imported("report.frozen"), "write down a sweep's analysis before it is run"),
    "report": (_imported("report.command"), "print a sweep's table beside the paper's, or all runs"),
    "diff": (_imported("report.diff.command"), "compare configuration, metrics and curves of two runs"),
    "dashboard": (_imported("report.tensorboard.command"), "TensorBoard of all runs, by sweep and cell"),
    "inspect": (_imported("tools.inspect.command"), "draw what a network attends to, by level and block"),
    "convert": (_imported("tools.convert"), "convert released weights, or others, for one of our models"),
    "export": (_imported("tools.export.command"), "export a checkpoint to ONNX, torch.export or timm"),
    "profile": (_imported("tools.profile.command"), "count, and measure, backbones side by side"),
}


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, SUBCOMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in SUBCOMMANDS.items())
    parser = CommandParser(
        prog="focal-lab",
        usage="focal-lab [--help] [--version] SUBCOMMAND ...",
        description="Ablation studies of the Focal Transformer (NeurIPS 2021).",
        epilog=f"subcommands (see focal-lab SUBCOMMAND --help):\n{listed}",
    )
    parser.add_argument("--version", action="version", version=f"focal-lab {__version__}")
    parser.add_argument("subcommand", metavar="SUBCOMMAND", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # see __main__.py
    sys.exit(main())

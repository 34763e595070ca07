"""`focal-lab`: one table from subcommand to function. Nothing heavy is imported before it is needed."""

import argparse
import datetime
import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress

from focal_lab._version import __version__
from focal_lab.command_line import CommandParser, command, did_you_mean, take_every_character
from focal_lab.errors import UserError, one_of

FAULT = 1
USER_ERROR = 2
INTERRUPTED = 130
DEBUG_VARIABLE = "FOCAL_LAB_DEBUG"
# what a path that an option or a file names can be wrong in
_PATH_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; the exit status.

    2 for a user's mistake, in one line; 1 for a fault, in one line and a log file, or as a traceback if
    FOCAL_LAB_DEBUG is set; 130 after Ctrl-C.
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
        _discard_output()  # its reader has gone, as `| head` does
        return 0
    except Exception as error:
        return _unexpected(error)


def _fail(message: str, status: int) -> int:
    print(f"focal-lab: {' '.join(message.split())}", file=sys.stderr)
    return status


def _unexpected(error: Exception) -> int:
    """The last line of defence: one line about an error that nobody has foreseen."""
    if os.environ.get(DEBUG_VARIABLE):
        traceback.print_exception(error)
        return FAULT
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        if error.filename is None:
            _discard_output()  # it may be standard output that has no room
        where = f"{error.filename}: " if error.filename else ""
        return _fail(f"{where}{error.strerror}; make room, and start the command again", FAULT)
    if isinstance(error, _PATH_ERRORS) and error.filename is not None:
        return _fail(f"{error.filename}: {error.strerror}", USER_ERROR)
    message = " ".join(str(error).split())
    told = f"{type(error).__name__}: {message[:300]}" if message else type(error).__name__
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return _fail(f"{told}{where}; {_log(error)}", FAULT)


def _log(error: Exception) -> str:
    """Write the traceback to a file; what to say of it."""
    name = f"focal-lab-{datetime.datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}.log"
    path = os.path.join(tempfile.gettempdir(), name)
    try:
        with open(path, "x", encoding="utf-8", errors="backslashreplace") as stream:
            traceback.print_exception(error, file=stream)
    except OSError:
        return f"{DEBUG_VARIABLE}=1 prints the traceback"
    return f"the traceback is in {path} ({DEBUG_VARIABLE}=1 prints it)"


def _prepare_streams() -> None:
    """Standard streams are open, also where the caller closed them, and take every character.

    The next file that is opened would get the number of a closed one, and with it what others print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    take_every_character()


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _put_working_directory_last() -> None:
    """Modules in the working directory are found, and hide no other: a `timm.py` there is not timm."""
    with suppress(FileNotFoundError):  # somebody has removed it
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())


def _run(arguments: list[str]) -> int:
    """Find the subcommand and run it."""
    if not arguments or arguments[0].startswith("-"):
        _parser().parse_args(arguments or ["--help"])  # --help and --version exit by themselves
    if not arguments or arguments[0] not in SUBCOMMANDS:
        name = " ".join(arguments[:1])
        hint = did_you_mean(name, SUBCOMMANDS) or f" (use {one_of(SUBCOMMANDS)})"
        raise UserError(f"{name!r} is not a subcommand{hint}")
    run, _ = SUBCOMMANDS[arguments[0]]
    return run(arguments[1:])


def plan(argv: list[str]) -> int:
    """Show what a sweep would train."""
    from focal_lab.report.published.layouts import known_papers
    from focal_lab.sweep.commands.plan import plan_command

    return plan_command(argv, known_papers())


def sweep(argv: list[str]) -> int:
    """Train what is missing, then print the table."""
    from focal_lab.report.command import print_table
    from focal_lab.report.published.layouts import known_papers
    from focal_lab.sweep.commands.sweep import sweep_command

    status, trained, out = sweep_command(argv, known_papers())
    print_table(trained, out, trained_by=command("sweep", *argv))
    return status


def worker(argv: list[str]) -> int:
    """Join in a sweep."""
    from focal_lab.sweep.commands.worker import worker_command

    return worker_command(argv)


def runs(argv: list[str]) -> int:
    """List runs, remove them, try them again."""
    from focal_lab.sweep.commands.runs import runs_command

    return runs_command(argv)


def report(argv: list[str]) -> int:
    """Print a sweep's table, or all runs."""
    from focal_lab.report.command import main as report_main

    return report_main(argv)


def dashboard(argv: list[str]) -> int:
    """Show runs in TensorBoard."""
    from focal_lab.report.tensorboard.command import main as dashboard_main

    return dashboard_main(argv)


def diff(argv: list[str]) -> int:
    """Compare two runs."""
    from focal_lab.report.diff.command import main as diff_main

    return diff_main(argv)


def inspect(argv: list[str]) -> int:
    """Show what a network's attention looks at."""
    from focal_lab.tools.inspect.command import main as inspect_main

    return inspect_main(argv)


def profile(argv: list[str]) -> int:
    """Show what models come to and cost."""
    from focal_lab.tools.profile.command import main as profile_main

    return profile_main(argv)


def convert(argv: list[str]) -> int:
    """Write weights of another format or size for one of our models."""
    from focal_lab.tools.convert import main as convert_main

    return convert_main(argv)


def export(argv: list[str]) -> int:
    """Write a trained network for other programs."""
    from focal_lab.tools.export.command import main as export_main

    return export_main(argv)


def predict(argv: list[str]) -> int:
    """Show pictures to a trained network; a first argument that begins with -- means Lightning's way."""
    if argv and not argv[0].startswith("--"):
        from focal_lab.tools.predict.command import main as predict_main

        if argv[0] != "-h":
            return predict_main(argv)
    if not argv or argv[0] in ("-h", "--help"):
        from focal_lab.tools.predict.command import parser

        parser().print_help()
        print()
        argv = ["--help"]
    return trainer("predict")(argv)


def fit(argv: list[str]) -> int:
    """Train one experiment; with --dry_run only say what that would take."""
    if {"-h", "--help"} & set(argv):
        # an option of ours and not of Lightning's, whose list of options follows
        print("--dry_run  build everything, take a step, print what the training would take; write nothing\n")
    if "--dry_run" not in argv:
        return trainer("fit")(argv)
    from focal_lab.tools.dry_run.command import main as dry_run_main

    return dry_run_main([argument for argument in argv if argument != "--dry_run"])


def find_lr(argv: list[str]) -> int:
    """Raise the learning rate step by step, and suggest one."""
    from focal_lab.tools.find_lr.command import main as find_lr_main

    return find_lr_main(argv)


def trainer(subcommand: str) -> Callable[[list[str]], int]:
    """A LightningCLI subcommand."""

    def run(argv: list[str]) -> int:
        from focal_lab.training.cli import main as training_main

        return training_main(subcommand, argv)

    return run


SUBCOMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "fit": (fit, "train one experiment: --config FILE; with --dry_run say what that would take"),
    "find-lr": (find_lr, "raise the learning rate from step to step and suggest one: --config FILE"),
    "validate": (trainer("validate"), "evaluate a checkpoint on the validation split"),
    "test": (trainer("test"), "evaluate a checkpoint on the test split"),
    "predict": (predict, "show pictures to a checkpoint: CHECKPOINT IMAGES..., or --config EXPERIMENT"),
    "plan": (plan, "show what a sweep would train, and what it can reuse"),
    "sweep": (sweep, "train what is missing of a sweep and print its table"),
    "worker": (worker, "join in a sweep that was begun here or on another machine"),
    "runs": (runs, "list the runs of a folder; rm, retry and gc take care of them"),
    "report": (report, "print a sweep's table beside the paper's, or all runs"),
    "diff": (diff, "compare two runs: configuration, metrics, curves, environment"),
    "dashboard": (dashboard, "TensorBoard of all runs, grouped by sweep and named by cell"),
    "inspect": (inspect, "what a network attends to, by level and block, drawn over pictures"),
    "convert": (convert, "write released weights, or others, for one of our models"),
    "export": (export, "write a checkpoint as ONNX, torch.export's file or a folder for timm"),
    "profile": (profile, "count, and measure, backbones side by side"),
}


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, SUBCOMMANDS))
    listed = "\n".join(f"  {name:<{width}}  {text}" for name, (_, text) in SUBCOMMANDS.items())
    parser = CommandParser(
        prog="focal-lab",
        usage="focal-lab [--help] [--version] SUBCOMMAND ...",
        description="Ablation studies of the Focal Transformer (NeurIPS 2021).",
        epilog=f"subcommands (focal-lab SUBCOMMAND --help tells more):\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"focal-lab {__version__}")
    parser.add_argument("subcommand", metavar="SUBCOMMAND", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # see __main__.py
    sys.exit(main())

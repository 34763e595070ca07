"""A suite: a folder under `experiments/` with one experiment per task."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focal_lab.data.option_names import current_config
from focal_lab.errors import UserError, known_names, one_of
from focal_lab.sweep.spec.columns import MAIN
from focal_lab.utils.yaml import load_yaml

SUITE_FILE = "suite.yaml"
EXPERIMENTS = Path("experiments")
# `fit` takes more, such as ckpt_path, from where it resumes; a sweep knows that itself
_KEYS = ("seed_everything", "trainer", "model", "data")


@dataclass(frozen=True)
class Suite:
    """The experiments of a folder.

    Attributes:
        backbones: name in a sweep file -> backbone that stands for it here (the digits suite has small ones).
        experiments: task -> experiment of another folder, relative to this one.
        paper_images: task whose data are the paper's -> how many images its published results are of.
    """

    name: str
    folder: Path
    backbones: dict[str, str]
    experiments: dict[str, str] = field(default_factory=dict)
    paper_images: dict[str, int] = field(default_factory=dict)

    def experiment(self, task: str) -> dict[str, Any]:
        """The LightningCLI configuration of a task.

        Raises:
            UserError: the suite has none for it, or the file is malformed.
        """
        path = self.folder / self.experiments.get(task, f"{task}.yaml")
        if not path.is_file():
            there = sorted(file.stem for file in self.folder.glob("*.yaml") if file.name != SUITE_FILE)
            raise UserError(
                f"suite {self.name} has no experiment for {task} (it has {one_of(there)})", file=path
            )
        config = current_config(load_yaml(path), path)
        for part in ("model", "data"):
            section = config.get(part)
            if not isinstance(section, dict) or "class_path" not in section:
                raise UserError("needs a class_path and init_args", file=path, key=part)
            section["init_args"] = _section(section, "init_args", path, f"{part}.init_args")
        config["trainer"] = _section(config, "trainer", path, "trainer")
        for key, value in config.items():
            if key not in _KEYS and value is not None:
                raise UserError(f"cannot be set in a sweep; use {one_of(_KEYS)}", file=path, key=key)
        return {key: config[key] for key in config if key in _KEYS}


def find_suite(name: str) -> Suite:
    """The suite of that name.

    Raises:
        UserError: there is none; the message names a similar one, or all.
    """
    folder = EXPERIMENTS / name
    if not EXPERIMENTS.is_dir():
        raise UserError("there is no folder experiments/ here; run focal-lab from a checkout of the project")
    if not folder.is_dir():
        raise _no_suite(name, "is not a suite")
    if Path(name).name != name or name == "..":  # studies are named after it
        raise _no_suite(name, "is a path; give the name of a folder in experiments/")
    if not _has_experiments(folder):
        raise _no_suite(name, "has no experiments, only overlays")
    path = folder / SUITE_FILE
    raw = load_yaml(path) if path.is_file() else {}
    sections = {key: raw.get(key, {}) for key in ("backbones", "experiments", "paper_images")}
    if set(raw) - set(sections) or not all(isinstance(section, dict) for section in sections.values()):
        raise UserError(
            "may have backbones: {name in sweeps: name here}, experiments: {task: file elsewhere} and "
            "paper_images: {task with the paper's data: number of test images}",
            file=path,
        )
    images = _paper_images(sections.pop("paper_images"), path)
    named = {key: {str(k): str(v) for k, v in section.items()} for key, section in sections.items()}
    return Suite(name, folder, **named, paper_images=images)


def _paper_images(section: dict[Any, Any], path: Path) -> dict[str, int]:
    for task, count in section.items():
        if task not in MAIN:
            raise UserError(f"{task!r} is not a task (use {one_of(MAIN)})", file=path, key="paper_images")
        if type(count) is not int or count < 1:
            raise UserError(f"{count!r} is not a number of images", file=path, key=f"paper_images.{task}")
    return section


def _no_suite(name: str, why: str) -> UserError:
    there = sorted(path.name for path in EXPERIMENTS.iterdir() if path.is_dir() and _has_experiments(path))
    return UserError(f"{name!r} {why}{known_names(name, there)}", key="--suite")


def _has_experiments(folder: Path) -> bool:
    """Overlays, such as those in `experiments/debug`, name no class."""
    files = list(folder.glob("*.yaml"))
    named = any("class_path" in file.read_text(encoding="utf-8", errors="replace") for file in files)
    return named or folder / SUITE_FILE in files or not files


def _section(config: dict[str, Any], name: str, path: Path, key: str) -> dict[str, Any]:
    """A part of an experiment that may be left out or empty."""
    section = config.get(name)
    if not isinstance(section, dict | None):
        raise UserError(f"{section!r} is not a mapping", file=path, key=key)
    return section or {}

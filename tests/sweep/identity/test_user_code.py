"""The user's own code is part of a run's identity."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast
from zipfile import ZipFile

import pytest
from support.small_project import write, write_sweep

from focal_lab.errors import UserError
from focal_lab.sweep.commands.execution import conclusion, status_of
from focal_lab.sweep.commands.worker_command import check_code
from focal_lab.sweep.engine.executor import Execution
from focal_lab.sweep.engine.queue import RunQueue
from focal_lab.sweep.engine.slots import DeviceSlots
from focal_lab.sweep.identity import user_code
from focal_lab.sweep.identity.run_ids import Identities
from focal_lab.sweep.identity.user_code import UserCode, changed_code, refuse_changed_code
from focal_lab.sweep.plan.manifest import Manifest
from focal_lab.sweep.plan.plan import make_plan
from focal_lab.sweep.run_folder.provenance import git_of
from focal_lab.sweep.worker.processes import WarmProcesses

CONFIG = {"data": {"class_path": "mine.Data", "init_args": {}}, "model": {"class_path": "focal_lab.x.Y"}}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def modules(files: dict[str, str]) -> list[str]:
    """Names of the modules that belong to CONFIG after writing some files."""
    for name, text in files.items():
        write(f"{name}.py", text)
    return list(UserCode().of(CONFIG))


def test_imported_modules_belong_to_a_module_and_others_do_not() -> None:
    found = modules(
        {
            "mine": "import torch, numpy, os, focal_lab.errors\nimport pack.deep.part\n"
            "def f():\n    import lazy\nimport importlib\nm = importlib.import_module('named')\n",
            "pack/__init__": "from .sibling import *\n",
            "pack/sibling": "from . import other\n",
            "pack/other": "",
            "pack/deep/part": "from ..sibling import x\nfrom space.inner import y\n",
            "pack/nobodys": "",
            "space/inner": "",
            "lazy": "from pack import late as u\n",
            "pack/late": "",
            "named": "",
            "nobodys": "",
        }
    )
    inside = ["pack.deep.part", "pack.late", "pack.other", "pack.sibling"]
    assert found == ["lazy", "mine", "named", "pack", *inside, "space.inner"]


def test_a_module_that_computes_what_it_imports_counts_with_its_whole_package() -> None:
    registry = "import importlib\ndef load(n):\n    return importlib.import_module(n)\n"
    files = {"mine": "import plug.registry\n", "plug/__init__": "", "plug/registry": registry, "plug/a/b": ""}
    assert modules(files) == ["mine", "plug", "plug.a.b", "plug.registry"]


ZIPPED = "import sys\nsys.path.insert(0, 'z.zip')\nimport zipped\n"
HIDDEN = {
    "another name": ("from importlib import import_module as im\nim('pack.deep')\n", "pack.deep"),
    "resolve_name": ("import pkgutil\npkgutil.resolve_name('pack.deep:x')\n", "pack.deep"),
    "run_module": ("import runpy\nrunpy.run_module('helper')\n", "helper"),
    "a list of names": ("import importlib\nfor n in ['helper']:\n    importlib.import_module(n)\n", "helper"),
    "a folder on sys.path": (
        "import sys, os\nsys.path.append(os.path.join('lib', 'x'))\nimport part\n",
        "part",
    ),
    "an archive on sys.path": (ZIPPED, "zipped"),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_is_imported_by_the_back_door_belongs_to_it(name: str) -> None:
    text, expected = HIDDEN[name]

    def found(value: int) -> dict[str, str]:
        with ZipFile("z.zip", "w") as archive:
            archive.writestr("zipped.py", f"x = {value}\n")
        modules({"mine": text, "helper": f"x = {value}\n", "lib/part": f"x = {value}\n"})
        modules({"pack/__init__": "", "pack/deep": f"x = {value}\n"})
        return UserCode().of(CONFIG)

    first = found(1)
    assert set(first) - {"pack"} >= {"mine", expected}
    assert found(1) == first != found(2)
    files = UserCode().files(first)
    assert len(files) == len(first)
    assert all(file.is_file() for file in files)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("# a comment\nclass Data:\n    '''Documented.'''\n    size = (28)\n", True),
        ("class Data:\n    size = 29\n", False),
        ("class Data:\n    size = None\n", False),
        ("class Data:\n    size = 28.0\n", False),
        ("class Data:\n    size = 28\n    pass\n", False),
        ("class Data: not Python", False),
    ],
)
def test_comments_and_formatting_are_not_code(text: str, same: bool) -> None:
    write("mine.py", "class Data:\n    size = 28\n")
    before = UserCode().of(CONFIG)
    write("mine.py", text)
    assert (UserCode().of(CONFIG) == before) == same


@pytest.mark.parametrize(
    "value",
    [
        {"transform": "mine.augment"},
        {"dict_kwargs": {"a": [{"class_path": "mine.T"}]}},
        {"trainer": {"callbacks": [{"class_path": "mine.Callback"}]}},
    ],
)
def test_dotted_names_are_found_wherever_they_are(value: dict[str, object]) -> None:
    write("mine.py", "")
    assert list(UserCode().of(value)) == ["mine"]


def test_installed_packages_and_what_is_no_module_are_not_the_users() -> None:
    write("env/lib/site-packages/mine.py", "")
    assert (
        UserCode().of({"a": ["torch.nn.Linear", "val.top1", "json.loads", "bf16-mixed", "focal_lab.cli"]})
        == {}
    )


def test_compiled_modules_count_by_their_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import importlib.machinery

    suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
    write(f"mine{suffix}", "one")
    first = UserCode().of(CONFIG)
    write(f"mine{suffix}", "another")
    assert list(first) == ["mine"]
    assert UserCode().of(CONFIG) != first


def test_a_run_refuses_to_train_other_code_than_its_id_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    write("mine.py", "import helper\nclass Data: pass\n")
    write("helper.py", "x = 1\n")
    identity = {"data": {"class_path": "mine.Data"}, "code": UserCode().of(CONFIG)}
    refuse_changed_code(CONFIG, identity)
    monkeypatch.setattr(user_code, "_LOADED", {})
    user_code.note_loaded([CONFIG])
    write("helper.py", "x = 2\n")
    with pytest.raises(UserError, match=r"^helper: the code changed since the sweep was planned"):
        refuse_changed_code(CONFIG, identity)
    # planned with the new code, but the process has imported the old one
    assert changed_code(CONFIG, identity | {"code": UserCode().of(CONFIG)}) == ["helper"]


def test_an_edited_data_module_is_another_run(run_of_own_data: Callable[[], str]) -> None:
    write(
        "mine.py",
        "from focal_lab.data import DigitsClassification\nclass Data(DigitsClassification): pass\n",
    )
    first = run_of_own_data()
    assert run_of_own_data() == first
    write(
        "mine.py",
        "from focal_lab.data import DigitsClassification as D\nclass Data(D):\n    pieces = 3\n",
    )
    assert run_of_own_data() != first


@pytest.fixture
def run_of_own_data(project: None) -> Callable[[], str]:
    """The id of the run whose data module is mine.Data."""
    path = write_sweep(factors={"window_size": [7]}, seeds=1, set={"data.class_path": "mine.Data"})
    return lambda: make_plan(path).runs[0].id


def test_the_users_repository_is_in_the_provenance() -> None:
    write("mine.py", "x = 1\n")
    for command in ("init -q", "add mine.py", "-c user.name=a -c user.email=b commit -qm one"):
        subprocess.run(["git", *command.split()], check=True)
    (clean,) = git_of(["mine"])["user_code"]
    assert (clean["folder"], len(clean["commit"]), clean["dirty"]) == (Path.cwd().name, 40, False)
    write("new.py", "")
    (untracked,) = git_of(["mine", "new"])["user_code"]
    assert untracked == clean | {"dirty": True}
    assert "user_code" not in git_of([])


def test_one_object_sees_one_state_of_the_code() -> None:
    write("mine.py", "x = 1\n")
    identities = Identities()
    first = identities.code.of(CONFIG)
    write("mine.py", "x = 2\n")
    assert identities.code.of(CONFIG) == first != UserCode().of(CONFIG)


class _Silent:
    """A view that shows nothing."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **options: None


@pytest.mark.usefixtures("project")
def test_no_run_is_begun_after_the_code_was_edited_and_no_worker_joins_with_other_code() -> None:
    write("mine.py", "class Data: pass\n")
    out = Path("runs")
    plan = make_plan(write_sweep(factors={"window_size": [7]}, seeds=1, set={"data.class_path": "mine.Data"}))
    queue = RunQueue(out, "small-1")
    execution = Execution(
        plan.runs,
        out,
        queue,
        slots=DeviceSlots(1, 1),
        timeout=60.0,
        keep=frozenset(),
        processes=WarmProcesses(),
        view=cast(Any, _Silent()),
    )
    manifest = Manifest("small-1", "small", "digits", "", plan.runs)
    check_code(manifest)
    write("mine.py", "class Data: size = 1\n")
    summary = execution.run()
    assert summary.trained == summary.failed == []
    assert "mine: the code changed since the sweep was planned" in conclusion(
        1, summary, "focal-lab sweep small"
    )
    assert status_of(summary) == 1
    with pytest.raises(UserError, match=r"^--study: mine: not the code that study small-1 was planned with"):
        check_code(manifest)

"""timm's own model tests, run on every focal backbone.

The wheel of timm holds no tests, its source distribution does: fetch the one of the installed version, and
run its tests/test_models.py with our models registered. TorchScript is left out: `torch.jit.script` refuses
focal attention and says why (tests/backbones/test_graphs.py); so are feature levels of the shallow networks,
of which the test expects at least three, and they have two stages.

    python .ci/timm_suite.py [pytest arguments]
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import timm

from focal_lab.backbones import registry

# lists of module names that a test goes through; ours is not among them
LISTS = ("FEAT_INTER_FILTERS = [",)
OURS = registry.__name__.rpartition(".")[2]


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "timm"]
        subprocess.run([*fetch, "--dest", folder, f"timm=={timm.__version__}"], check=True)
        (archive,) = Path(folder).glob("timm-*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        tests = Path(folder, archive.name.removesuffix(".tar.gz"), "tests", "test_models.py")
        text = tests.read_text()
        for name in LISTS:
            if name not in text:
                sys.exit(f"timm {timm.__version__}: {name} is no longer in {tests.name}; mend {__file__}")
            text = text.replace(name, f"{name}'{OURS}', ", 1)
        tests.write_text(text)
        # timm's package in that folder must not hide the installed one
        command = [sys.executable, "-m", "pytest", "-p", "focal_lab", "-p", "no:cacheprovider", "--no-header"]
        chosen = "focal_ and not torchscript and not ((forward_features or intermediates) and shallow)"
        command += ["-W", "ignore", "-k", chosen, str(tests), *arguments]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=tests.parent, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.tiny_task import tiny_config, write_config

# in a process of its own: what it freezes and imports would stay in that of the tests
SCRIPT = """
import sys, threading, yaml
from focal_lab.training.fit import train
from focal_lab.training.preload import preload
import torch
configs = [yaml.safe_load(open(path)) for path in sys.argv[1:]]
preload(configs)
from focal_lab.data.digits import mnist5k as source
print(threading.active_count(), torch.cuda.is_initialized(), torch.get_num_threads())
print("torch.utils.tensorboard" in sys.modules, source._all_digits.cache_info().currsize)
print(open("/proc/self/status").read().split("Threads:")[1].split()[0] if sys.platform == "linux" else 1)
"""


def preloaded(*configs: dict[str, Any]) -> list[str]:
    files = [write_config(Path(f"{number}.yaml"), config) for number, config in enumerate(configs)]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, files)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "leaked" not in done.stderr
    return done.stdout.splitlines()


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_what_is_preloaded_can_be_forked_and_holds_the_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert preloaded(tiny_config()) == ["1 False 1", "True 1", "1"]


def test_a_wrong_configuration_is_left_to_its_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    nobodys = tiny_config()
    nobodys["model"]["class_path"] = "nobody.Knows"
    wrong = tiny_config(lrr=1)
    assert preloaded(nobodys, wrong)[1] == "True 0"

"""What the fork server imports once, and nobody else: torch, Lightning, the code of a run.

It must outlive a SIGTERM or SIGHUP that is sent to the whole group of a command: its children are then
writing their checkpoints, and they die with it. It ends when the command ends, also while it still imports.
"""

import importlib
import json
import os
import signal
import sys

from focal_lab.command_line import take_every_character
from focal_lab.sweep.identity.user_code import note_loaded
from focal_lab.sweep.worker.protocol import PRELOAD_VARIABLE, SAFE_PATH_VARIABLE
from focal_lab.sweep.worker.signals import die_with

_asked = json.loads(os.environ.pop(PRELOAD_VARIABLE))
die_with(_asked["parent"])
# as in `focal-lab` itself: modules in the working directory are found last
sys.path.append(os.getcwd())
del os.environ[SAFE_PATH_VARIABLE]
if _asked["safe_path"] is not None:
    os.environ[SAFE_PATH_VARIABLE] = _asked["safe_path"]
take_every_character()
for _number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, signal.SIG_IGN)
note_loaded(_asked["configs"])
# what takes seconds comes last
importlib.import_module("focal_lab.sweep.worker.train")
importlib.import_module("focal_lab.training.preload").preload(_asked["configs"])

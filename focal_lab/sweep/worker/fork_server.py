"""Imported once by the fork server: loads torch, Lightning and the code and data of the runs.

It survives a SIGTERM or SIGHUP to the whole process group of a command, because its worker processes are then
writing checkpoints and would be killed with it. It exits with the command, also while it still imports.
"""

import importlib
import json
import os
import signal
import sys

from focal_lab.command_line import replace_unknown_characters
from focal_lab.sweep.identity.user_code import note_loaded
from focal_lab.sweep.worker.processes import PRELOAD_VARIABLE, SAFE_PATH_VARIABLE
from focal_lab.sweep.worker.signals import exit_with

_asked = json.loads(os.environ.pop(PRELOAD_VARIABLE))
exit_with(_asked["parent"])
# as in `focal-lab` itself, modules in the working directory are found last
sys.path.append(os.getcwd())
del os.environ[SAFE_PATH_VARIABLE]
if _asked["safe_path"] is not None:
    os.environ[SAFE_PATH_VARIABLE] = _asked["safe_path"]
replace_unknown_characters()
for _number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, signal.SIG_IGN)
note_loaded(_asked["configs"])
# the imports that take seconds come last
importlib.import_module("focal_lab.sweep.worker.train")
importlib.import_module("focal_lab.training.preload").preload(_asked["configs"])

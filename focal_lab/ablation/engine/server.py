"""What the fork server imports once, and nobody else: torch, Lightning, the code of a run.

It must outlive a SIGTERM or SIGHUP that is sent to the whole group of a command: its children are then
writing their checkpoints, and they die with it. It ends when the command ends, also while it still imports.
"""

import importlib
import json
import os
import signal

from focal_lab.ablation.engine.orders import PRELOAD_VARIABLE
from focal_lab.ablation.engine.stopping import die_with

_asked = json.loads(os.environ.pop(PRELOAD_VARIABLE))
die_with(_asked["parent"])
for _number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, signal.SIG_IGN)
# what takes seconds comes last
importlib.import_module("focal_lab.ablation.engine.child")
importlib.import_module("focal_lab.tasks.warmup").preload(_asked["configs"])

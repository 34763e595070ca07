"""What the fork server imports once, and nobody else: torch, Lightning, the code of a run.

It must outlive a SIGTERM or SIGHUP that is sent to the whole group of a command: its children are then
writing their checkpoints, and they die with it. It ends when the command ends.
"""

import json
import os
import signal

import focal_lab.ablation.engine.child  # noqa: F401
from focal_lab.ablation.engine.orders import KINDS_VARIABLE
from focal_lab.tasks.warmup import preload

for _number in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(_number, signal.SIG_IGN)
preload(json.loads(os.environ.pop(KINDS_VARIABLE, "[]")))

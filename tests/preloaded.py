"""What the fork server of `tests.processes` imports, all of it with the garbage collector off.

The collector walks whatever is there already, again and again: a fifth of the time that torch and transformers take.
"""

import gc
import importlib

from tests.processes import PRELOADED

gc.disable()
try:
    for name in PRELOADED:
        importlib.import_module(name)
finally:
    gc.freeze()
    gc.enable()

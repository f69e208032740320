"""Training: the loop, its hooks, optimizers, schedules, checkpoints and what a run leaves on disk.

`detkit.train(CONFIG, ...)`, the package called as a function, is `train` of detkit/api.py.
"""

from detkit.utils.callable_package import make_callable

make_callable(__name__)

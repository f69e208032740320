"""COCO average precision: the evaluation loop, its engines, and the result as a table or JSON.

`detkit.evaluate(MODEL, DATASET)`, the package called as a function, is `evaluate` of detkit/api.py.
"""

from detkit.utils.callable_package import make_callable

make_callable(__name__)

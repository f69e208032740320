"""`detkit explain`: every part, key and argument in words, as data, text and Markdown.

explain("SigmoidFocalLoss"), explain("train.precision"), explain("losses.classification", config=config)
list_parts("backbones")
"""

from detkit.config.explain.explanation import Explanation, explain, list_parts

__all__ = ["Explanation", "explain", "list_parts"]

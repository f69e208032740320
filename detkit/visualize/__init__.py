"""Pictures for people: boxes on images, ground truth beside prediction, curves of a run."""

from detkit.visualize.colors import class_color
from detkit.visualize.curves import plot_curves
from detkit.visualize.draw import draw_detections
from detkit.visualize.grid import picture_grid

__all__ = ["class_color", "draw_detections", "picture_grid", "plot_curves"]

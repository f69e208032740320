"""COCO average precision: the evaluation loop, its engines, and the result as a table or JSON."""

"""Weights of torchvision and Detectron2 as detkit checkpoints."""

"""Layers for backbones, necks and heads."""

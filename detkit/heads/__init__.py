"""Heads: from levels to class logits and box deltas per anchor."""

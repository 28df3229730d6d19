"""Companion to "Contrastive Learning with Synthetic Positives" (ECCV'24)."""

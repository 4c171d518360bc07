"""Checkpoints of a run: saving, restoring, verifying, keeping."""

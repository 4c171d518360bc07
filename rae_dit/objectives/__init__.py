"""Objectives: what a run minimizes, one file each."""

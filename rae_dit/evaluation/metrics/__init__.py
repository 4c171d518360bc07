"""Metrics of sets of images, one file each."""

"""Representation encoders: one file per family."""

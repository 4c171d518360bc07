"""Experiment configs: values only, one file each with its lab note; `_*.py` hold shared values."""

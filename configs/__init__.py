"""Values only: one file per experiment, its docstring a lab note; `_*.py` hold shared values."""

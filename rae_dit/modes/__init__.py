"""One file per --mode."""

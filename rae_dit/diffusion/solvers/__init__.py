"""Solvers of the flow's differential equation, one a file."""

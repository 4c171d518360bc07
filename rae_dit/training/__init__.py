"""State, step, shardings, hooks, metrics and the training loop."""

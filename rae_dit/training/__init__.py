"""State, step, shardings, checkpoints and the loop that drives them."""

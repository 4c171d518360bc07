"""Memory, arithmetic, traffic and time of a training step, from its compiled program."""

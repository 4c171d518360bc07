"""Flow matching, samplers and guidance: pure functions of arrays and velocities."""

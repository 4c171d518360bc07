"""Demo page: samples, reconstructions and running trainings in a browser."""

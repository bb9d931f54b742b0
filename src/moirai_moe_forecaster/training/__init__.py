"""Training: the objective, the data, and one plain loop."""

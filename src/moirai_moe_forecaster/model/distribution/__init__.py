"""What the network predicts: mixtures of distributions, and their quantiles."""

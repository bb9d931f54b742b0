"""Fine-tuning: a copy of a network learns from a user's own series."""

"""Training data: from a corpus to packed batches."""

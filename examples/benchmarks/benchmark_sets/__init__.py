"""Benchmark sets and validation sources: read, forecast and scored, and their tables."""

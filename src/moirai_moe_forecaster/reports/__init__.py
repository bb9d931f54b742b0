"""What backtests and routing showed, as tables and pages."""

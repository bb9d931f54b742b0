"""From a user's series to a forecast."""

"""The door: what users pass as data and arguments, checked and brought into one form."""

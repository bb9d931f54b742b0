"""The same network behind other libraries' interfaces; each is imported only when used."""

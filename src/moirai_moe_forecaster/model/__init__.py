"""The network and its parts, in torch alone."""

"""A trained model to look around in: pages that a server on this computer alone makes."""

"""Meta's webhook in, the public REST API out."""

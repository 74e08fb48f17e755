"""Life cycle of projects and their databases."""

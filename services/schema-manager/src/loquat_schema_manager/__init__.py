"""The shape of project databases."""

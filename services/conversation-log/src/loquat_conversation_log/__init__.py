"""The record of what was said."""

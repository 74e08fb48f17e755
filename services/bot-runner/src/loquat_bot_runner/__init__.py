"""Runs each project's bot."""

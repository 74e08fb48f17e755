"""What bot code imports."""

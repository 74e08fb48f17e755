"""The loquat command and the embedded stack."""

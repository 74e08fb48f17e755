"""The bus: one port, three engines, one conformance suite."""

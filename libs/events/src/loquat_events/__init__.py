"""Every event and command of Loquat, and the map of topics."""

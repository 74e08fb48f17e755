"""Meta on a laptop: Graph API subset and a phone page."""

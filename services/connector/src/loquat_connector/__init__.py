"""The only one that talks to Meta's Graph API."""

"""Shapes of the REST resources that one service serves and the gateway documents and forwards."""

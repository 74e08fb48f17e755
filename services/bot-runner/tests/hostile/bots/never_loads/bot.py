"""Does not come back from its import."""
while True:
    pass

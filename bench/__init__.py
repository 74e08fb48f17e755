"""Speed, as ratios against a baseline in the same interleaved run. Run by `make bench`."""

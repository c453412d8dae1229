"""`mystocks-scan benchmark`: the same work on every engine side by side, checked to be equal before it is timed."""

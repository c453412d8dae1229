"""What moves: feeds, the event bus, bars in the making, the broadcaster. Imports `data` alone."""

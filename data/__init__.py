"""What the market is: symbols, calendar, bars and where they are kept. Imports no other room."""

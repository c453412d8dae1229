"""What a scan is: indicators, terms, engines, rules. Imports `data` alone."""

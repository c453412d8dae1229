"""A symbol's chart: what it holds, computed once, and what draws it: a page, a picture, a terminal."""

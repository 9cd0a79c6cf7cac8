"""How fast the search and one epoch of training are, beside what one would write without this project."""

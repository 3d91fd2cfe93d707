"""Side-by-side measurements of the library against what a user would pick instead."""

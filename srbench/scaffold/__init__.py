"""What `srbench new` writes: one file for each kind of thing, with a function that gives its files as text."""

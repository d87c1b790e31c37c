"""Text of tables: one model of a table (`sheet`), a builder for each kind of numbers, and one writer for each format."""

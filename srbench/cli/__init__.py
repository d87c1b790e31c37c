"""The command line: options in, rooms called, text out. No logic of its own."""

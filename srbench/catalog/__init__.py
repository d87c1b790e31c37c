"""The catalog: reads and checks everything that is data, and names what exists. Imports no torch."""

"""Report: everything that a results folder says, as one HTML file that needs no network."""

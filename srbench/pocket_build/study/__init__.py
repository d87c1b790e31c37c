"""The reference runs on pocket, and the pages and tables that are made of them."""

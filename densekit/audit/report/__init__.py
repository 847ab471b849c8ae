"""One self-contained HTML page about one run, about several, or about all of a folder."""

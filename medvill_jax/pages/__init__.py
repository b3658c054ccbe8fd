"""What pages are made of: HTML from elements, and plots as pictures within it."""

"""Models behind an engine that keeps several of them running: the page's addresses for programs, without the page."""

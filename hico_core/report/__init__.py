"""HTML pages about runs or a workspace: the facts, their charts, and the page."""
